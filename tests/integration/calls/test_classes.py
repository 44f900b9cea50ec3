"""Classes against a whole server: methods, parameters, and the life of an instance."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import modal


def test_one_instance_of_a_container_serves_all_methods(app: modal.App) -> None:
    @app.cls(serialized=True)
    class Counter:
        @modal.enter()
        def start(self) -> None:
            self.count = 10

        @modal.method()
        def add(self, by: int) -> int:
            self.count += by
            return self.count

        @modal.method()
        def values(self, n: int) -> Any:
            yield from range(self.count, self.count + n)

        @modal.method()
        async def later(self) -> str:
            return f"async {self.count}"

    with app.run():
        counter = Counter()
        assert counter.add.remote(1) == 11
        assert counter.add.spawn(1).get(timeout=30) == 12
        assert list(counter.values.remote_gen(3)) == [12, 13, 14]
        assert counter.later.remote() == "async 12"
        assert sorted(counter.add.map([1, 1, 1])) == [13, 14, 15]


def test_each_set_of_parameters_has_its_own_containers(app: modal.App) -> None:
    @app.cls(serialized=True)
    class Model:
        name: str = modal.parameter()
        size: int = modal.parameter(default=2)

        @modal.enter()
        def start(self) -> None:
            self.calls: list[str] = []

        @modal.method()
        def call(self, what: str) -> Any:
            self.calls.append(what)
            return os.getpid(), self.name, self.size, self.calls

    with app.run():
        first, second = Model(name="a"), Model(name="b", size=3)
        one = first.call.remote("x")
        two = second.call.remote("y")
        again = Model(name="a", size=2).call.remote("z")
        assert one[1:] == ("a", 2, ["x"])
        assert two[1:] == ("b", 3, ["y"])
        assert again == (one[0], "a", 2, ["x", "z"])
        assert one[0] != two[0]
        assert first.call.object_id == Model(name="a").call.hydrate().object_id != second.call.object_id


def test_hooks_run_in_order_and_exit_hooks_when_the_app_stops(app: modal.App, tmp_path: Path) -> None:
    said = str(tmp_path / "said")

    class Base:
        def say(self, what: str) -> None:
            with open(said, "a") as file:
                file.write(what + "\n")

        @modal.enter()
        def base(self) -> None:
            self.say("base")

        @modal.exit()
        def base_exit(self) -> None:
            self.say("base exit")

    @app.cls(serialized=True)
    class Model(Base):
        @modal.enter()
        async def second(self) -> None:
            import asyncio

            self.loop = asyncio.get_running_loop()
            self.say("second")

        @modal.enter(snap=True)
        def first(self) -> None:
            self.say("first")

        @modal.method()
        async def same_loop(self) -> bool:
            import asyncio

            return asyncio.get_running_loop() is self.loop

        @modal.exit()
        async def last(self) -> None:
            import asyncio

            await asyncio.sleep(0.01)
            self.say("last")

    with app.run():
        assert Model().same_loop.remote()
    assert Path(said).read_text().split("\n") == ["first", "base", "second", "base exit", "last", ""]
