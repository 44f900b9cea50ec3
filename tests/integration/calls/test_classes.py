"""Classes against a whole server: methods, parameters, and the life of an instance."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from real_server import until

import modal
from modal.exception import DeprecationError, FunctionTimeoutError, InvalidError


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


def test_fifty_sets_of_parameters_are_fifty_functions(app: modal.App) -> None:
    @app.cls(serialized=True, container_idle_timeout=1)
    class Model:
        number: int = modal.parameter()

        @modal.method()
        def tell(self) -> int:
            return self.number

    with app.run():
        models = [Model(number=number) for number in range(50)]
        calls = [model.tell.spawn() for model in models]
        assert [call.get(timeout=120) for call in calls] == list(range(50))
        assert len({model.tell.object_id for model in models}) == 50


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda cls: cls(), "needs a value for the parameter 'name'"),
        (lambda cls: cls(name="x", nme=1), "has no parameter 'nme'; it has name, size"),
        (lambda cls: cls("x"), "are given by name"),
        (lambda cls: cls(name=3), "'name' of Model must be of type str, not 3"),
        (lambda cls: cls(name="x", size=True), "'size' of Model must be of type int"),
        (lambda cls: cls(name="x", size=2**63), "must fit in 64 bits"),
        (lambda cls: cls.tell.remote(), r"make an instance first, as in Model\(\)\.tell\.remote"),
    ],
)
def test_wrong_parameters_are_refused_where_they_are_given(make: Any, words: str) -> None:
    app = modal.App()

    @app.cls(serialized=True)
    class Model:
        name: str = modal.parameter()
        size: int = modal.parameter(default=1)

        @modal.method()
        def tell(self) -> str:
            return self.name

    with pytest.raises(InvalidError, match=words):
        make(Model)


def test_parameters_of_a_constructor_travel_pickled(app: modal.App) -> None:
    with pytest.warns(DeprecationError, match=r"modal\.parameter"):

        @app.cls(serialized=True)
        class Model:
            def __init__(self, sizes: list[int], *, name: str = "x") -> None:
                self.sizes, self.name = sizes, name

            @modal.method()
            def tell(self) -> Any:
                return self.sizes, self.name, os.getpid()

    @app.function(serialized=True)
    def use(model: Any) -> Any:
        return model.tell.remote(), isinstance(model, Model)

    with app.run():
        first = Model([1, 2], name="y").tell.remote()
        assert first[:2] == ([1, 2], "y")
        assert Model([1, 2], name="y").tell.remote() == first
        assert Model([1, 2]).tell.remote()[2] != first[2]
        assert use.remote(Model([1, 2], name="y")) == (first, True)
        with pytest.raises(TypeError, match=r"Model\(\): missing a required argument: 'sizes'"):
            Model()


def test_methods_of_an_instance_call_each_other_in_every_way(app: modal.App) -> None:
    class Base:
        @modal.method()
        def name(self) -> str:
            return "base"

        def plain(self) -> str:
            return "plain"

    @app.cls(serialized=True)
    class Model(Base):
        size: int = modal.parameter(default=2)

        @modal.enter()
        def start(self) -> None:
            self.base = self.plain()

        @modal.method()
        def name(self) -> str:
            return f"model of {super().name()}"

        @modal.method()
        def values(self, n: int) -> Any:
            yield from range(n)

        @modal.method()
        def all(self) -> Any:
            return (
                self.name(),
                self.name.local(),
                self.name.remote(),
                list(self.values(2)),
                list(self.values.remote_gen(2)),
                list(self.double.map([1, 2])),
                self.base,
            )

        @modal.method()
        def double(self, x: int) -> int:
            return x * self.size

    name = "model of base"
    with app.run():
        assert Model(size=5).all.remote() == (name, name, name, [0, 1], [0, 1], [5, 10], "plain")


def test_methods_are_called_from_other_functions_and_instances_travel(app: modal.App) -> None:
    @app.cls(serialized=True)
    class Model:
        size: int = modal.parameter(default=1)

        @modal.method()
        def tell(self) -> int:
            return self.size

    @app.function(serialized=True)
    def user(model: Any, method: Any) -> Any:
        return Model(size=3).tell.remote(), model.tell.remote(), method.remote()

    with app.run():
        assert user.remote(Model(size=4), Model(size=5).tell) == (3, 4, 5)


def test_deriving_from_a_decorated_class_takes_its_methods_and_hooks(app: modal.App) -> None:
    @app.cls(serialized=True)
    class First:
        size: int = modal.parameter(default=2)

        @modal.enter()
        def start(self) -> None:
            self.began = "first"

        @modal.method()
        def tell(self) -> Any:
            return type(self).__name__, self.began, self.size

    @app.cls(serialized=True)
    class Second(First):  # type: ignore[valid-type, misc, unused-ignore]
        @modal.method()
        def more(self) -> str:
            return "more"

    with app.run():
        assert First().tell.remote() == ("First", "first", 2)
        assert Second(size=3).tell.remote() == ("Second", "first", 3)
        assert Second().more.remote() == "more"


def test_several_inputs_run_at_a_time_sync_and_async_together(app: modal.App, tmp_path: Path) -> None:
    @app.cls(serialized=True, allow_concurrent_inputs=4, concurrency_limit=1)
    class Model:
        @modal.enter()
        def start(self) -> None:
            import threading

            self.barrier = threading.Barrier(3)

        @modal.method()
        def wait(self) -> int:
            return self.barrier.wait(20)

        @modal.method()
        async def await_it(self) -> int:
            import asyncio

            return await asyncio.get_running_loop().run_in_executor(None, self.barrier.wait, 20)

        @modal.method()
        def values(self, n: int) -> Any:
            yield from range(n)

    with app.run():
        model = Model()
        calls = [model.wait.spawn(), model.wait.spawn(), model.await_it.spawn()]
        assert sorted(call.get(timeout=60) for call in calls) == [0, 1, 2]
        assert list(model.values.remote_gen(200)) == list(range(200))


def test_a_sync_method_beside_async_ones_can_be_cancelled_and_timed_out(app: modal.App, tmp_path: Path) -> None:
    @app.cls(serialized=True, timeout=2, allow_concurrent_inputs=2)
    class Model:
        @modal.method()
        def hang(self, file: str) -> None:
            import time

            Path(file).write_text("begun")
            try:
                while True:
                    time.sleep(0.01)
            except BaseException as exc:
                Path(file).write_text(type(exc).__name__)
                raise

        @modal.method()
        async def pid(self) -> int:
            return os.getpid()

    first, second = tmp_path / "first", tmp_path / "second"
    with app.run():
        model = Model()
        pid = model.pid.remote()
        with pytest.raises(FunctionTimeoutError, match=r"Model\.hang ran longer than"):
            model.hang.remote(str(first))
        assert first.read_text() == "TimeoutReached"
        call = model.hang.spawn(str(second))
        until(second.exists, "the input to begin")
        call.cancel()
        until(lambda: second.read_text() == "InputCancellation", "the cancellation")
        assert model.pid.remote() == pid


@pytest.mark.parametrize("is_async", [False, True])
def test_a_batched_method_gets_lists(app: modal.App, is_async: bool) -> None:
    if is_async:

        @app.cls(serialized=True)
        class Model:
            factor: int = modal.parameter(default=1)

            @modal.batched(max_batch_size=4, wait_ms=2000)
            async def times(self, xs: list[int]) -> list[Any]:
                return [(x * self.factor, len(xs)) for x in xs]

    else:

        @app.cls(serialized=True)
        class Model:  # type: ignore[no-redef]
            factor: int = modal.parameter(default=1)

            @modal.batched(max_batch_size=4, wait_ms=2000)
            def times(self, xs: list[int]) -> list[Any]:
                return [(x * self.factor, len(xs)) for x in xs]

    with app.run():
        assert list(Model(factor=3).times.map([1, 2, 3, 4])) == [(3, 4), (6, 4), (9, 4), (12, 4)]


def test_options_make_other_containers_of_the_same_class(app: modal.App) -> None:
    @app.cls(serialized=True, timeout=60)
    class Model:
        size: int = modal.parameter(default=1)

        @modal.method()
        def tell(self) -> Any:
            return os.getpid(), self.size, os.environ.get("WORD")

        @modal.method()
        def hang(self) -> None:
            import time

            time.sleep(60)

    secret = modal.Secret.from_dict({"WORD": "swordfish"})
    with app.run():
        plain = Model(size=2).tell.remote()
        other = Model.with_options(secrets=[secret], timeout=1, memory=256)
        told = other(size=2).tell.remote()
        assert (plain[1:], told[1:]) == ((2, None), (2, "swordfish"))
        assert plain[0] != told[0]
        assert other(size=2).tell.remote() == told
        with pytest.raises(FunctionTimeoutError):
            other.with_options(cpu=0.5)(size=2).hang.remote()
        with pytest.raises(InvalidError, match="timeout"):
            Model.with_options(timeout=0)
        with pytest.raises(InvalidError, match=r"secrets must be a list of modal\.Secret"):
            Model.with_options(secrets=secret)


def test_a_pool_of_one_set_of_parameters_can_be_kept_warm(app: modal.App, tmp_path: Path) -> None:
    place = str(tmp_path / "entered")

    @app.cls(serialized=True)
    class Model:
        name: str = modal.parameter()

        @modal.enter()
        def start(self) -> None:
            with open(place, "a") as file:
                file.write(f"{self.name}\n")

        @modal.method()
        def work(self) -> None: ...

    with app.run():
        Model(name="warm").work.keep_warm(1)
        Model(name="warm").keep_warm(2)
        until(lambda: Path(place).exists() and Path(place).read_text().split() == ["warm", "warm"], "two containers")
        assert Model(name="warm").work.get_current_stats().num_total_runners >= 1
        with pytest.raises(InvalidError, match="whole number"):
            Model(name="warm").keep_warm(-1)


def test_local_calls_run_the_enter_hooks_once_and_need_no_server() -> None:
    app = modal.App()
    said: list[str] = []

    @app.cls(serialized=True)
    class Model:
        size: int = modal.parameter(default=2)

        @modal.enter()
        def start(self) -> None:
            said.append("enter")

        @modal.enter()
        async def connect(self) -> None:
            said.append("connect")

        @modal.method()
        def add(self, x: int) -> int:
            return self.size + x

        @modal.method()
        async def later(self) -> int:
            return self.add(1)

        @modal.exit()
        def stop(self) -> None:
            said.append("exit")

        @property
        def double(self) -> int:
            return self.size * 2

    model = Model(size=5)
    assert model.double == 10
    assert said == []
    assert asyncio.run(model.later.local()) == 6
    assert (model.add.local(1), model.add.local(2)) == (6, 7)
    assert said == ["enter", "connect"]
    model.size = 7
    assert model.add.local(1) == 8
    assert Model().add.local(0) == 2
    with pytest.raises(InvalidError, match=r"Model\.add.*cannot be called directly"):
        model.add(1)
    with pytest.raises(AttributeError):
        _ = model.nothing


def test_an_instance_is_one_of_its_class_wherever_it_is() -> None:
    app = modal.App()

    @app.cls(serialized=True)
    class Model:
        @modal.method()
        def same(self, other: Any) -> bool:
            return isinstance(other, Model) and isinstance(self, Model)

    @app.cls(serialized=True)
    class Other: ...

    assert isinstance(Model(), Model)
    assert not isinstance(Other(), Model)
    assert Model().same.local(Model())


def test_people_see_which_parameters_a_pool_is_of(app: modal.App, capfd: pytest.CaptureFixture[str]) -> None:
    @app.cls(serialized=True)
    class Model:
        name: str = modal.parameter(default="x")

        @modal.enter()
        def be_seen(self) -> None:
            time.sleep(0.5)  # what is over sooner may not be shown

        @modal.method()
        def run(self) -> None: ...

    with modal.enable_output(), app.run():
        Model(name="shown").run.remote()
        Model.with_options(timeout=5)().run.remote()
        call = Model(name="shown").run.spawn()
        call.get(timeout=30)
        assert [node.function_name for node in call.get_call_graph()] == ["Model.run"]
    printed = "".join(capfd.readouterr())
    assert "Model(name='shown'): starting 1 container" in printed
    assert "Model(with options): starting 1 container" in printed


def test_local_hooks_run_in_order_and_again_after_a_failure() -> None:
    app = modal.App()
    said: list[str] = []

    @app.cls(serialized=True)
    class Model:
        @modal.enter()
        async def first(self) -> None:
            said.append("first")

        @modal.enter()
        def second(self) -> None:
            said.append("second")
            if len(said) < 3:
                raise ValueError("not yet")

        @modal.method()
        def plain(self) -> str:
            return "plain"

        @modal.method()
        async def values(self, n: int) -> Any:
            for number in range(n):
                yield number

    model = Model()
    with pytest.raises(ValueError, match="not yet"):
        model.plain.local()
    assert model.plain.local() == "plain"
    assert said == ["first", "second"] * 2

    async def main() -> list[int]:
        inside = Model()
        assert inside.plain.local() == "plain"  # its async hook runs beside this loop
        return [value async for value in Model().values.local(2)]

    assert asyncio.run(main()) == [0, 1]


async def test_methods_are_called_from_async_code(app: modal.App) -> None:
    @app.cls(serialized=True)
    class Model:
        size: int = modal.parameter(default=1)

        @modal.method()
        def times(self, x: int) -> int:
            return self.size * x

        @modal.method()
        def values(self) -> Any:
            yield from range(self.size)

    async with app.run():
        model = Model(size=3)
        assert await model.times.remote.aio(2) == 6
        assert [value async for value in model.times.map.aio([1, 2])] == [3, 6]
        assert [value async for value in model.values.remote_gen.aio()] == [0, 1, 2]
        call = await model.times.spawn.aio(5)
        assert await call.get.aio() == 15
        await model.keep_warm.aio(0)
        assert await asyncio.gather(*(Model(size=n).times.remote.aio(1) for n in range(2, 5))) == [2, 3, 4]
