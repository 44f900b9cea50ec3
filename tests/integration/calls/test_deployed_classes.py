"""Classes of deployed apps: found by name, through versions, and forgotten when nobody uses a set of parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from real_server import PYTHON, RealServer, until

import modal
from modal._wire.messages.app import APP_STOP, AppStop, AppStopReason
from modal.cli.request import ask
from modal.exception import InvalidError, NotFoundError


@pytest.fixture
def deployed(real_server: RealServer) -> str:
    """A deployed app with a class and a function."""
    deploy("one")
    return "models"


def deploy(version: str, with_size: bool = True, name: str = "models") -> modal.App:
    app = modal.App(name, image=modal.Image.debian_slim(python_version=PYTHON))
    if with_size:

        @app.cls(serialized=True)
        class Model:
            name: str = modal.parameter(default="x")
            size: int = modal.parameter(default=1)

            @modal.method()
            def tell(self, what: str = "") -> Any:
                return version, self.name, self.size, what

            @modal.method()
            def values(self, n: int) -> Any:
                for number in range(n):
                    yield version, number

    else:

        @app.cls(serialized=True)
        class Model:  # type: ignore[no-redef]
            name: str = modal.parameter(default="x")

            @modal.method()
            def tell(self, what: str = "") -> Any:
                return version, self.name, what

    @app.function(serialized=True)
    def plain() -> str:
        return version

    modal.runner.deploy_app(app)
    return app


def test_a_class_is_found_by_name_and_looked_up_when_it_is_used(deployed: str) -> None:
    cls = modal.Cls.from_name(deployed, "Model")
    model = cls(name="y", size=3)
    assert model.tell.remote("hi") == ("one", "y", 3, "hi")
    assert list(model.values.remote_gen(2)) == [("one", 0), ("one", 1)]
    assert list(model.tell.map(["a", "b"])) == [("one", "y", 3, "a"), ("one", "y", 3, "b")]
    assert cls().tell.remote() == ("one", "x", 1, "")
    assert modal.Cls.lookup(deployed, "Model")(size=2).tell.spawn().get(timeout=30) == ("one", "x", 2, "")
    assert cls.hydrate().object_id.startswith("fu-")


def test_a_method_is_found_as_a_function(deployed: str) -> None:
    assert modal.Function.from_name(deployed, "Model.tell").remote("z") == ("one", "x", 1, "z")
    values = modal.Function.lookup(deployed, "Model.values")
    assert values.is_generator
    assert list(values.remote_gen(1)) == [("one", 0)]


@pytest.mark.parametrize(
    ("use", "kind", "words"),
    [
        (lambda app: modal.Cls.lookup(app, "Modle"), NotFoundError, "'Modle'"),
        (lambda app: modal.Cls.lookup(app, "plain"), InvalidError, "plain is a function, not a class"),
        (lambda app: modal.Cls.from_name(app, "plain")().run.remote(), InvalidError, "is a function"),
        (lambda app: modal.Cls.from_name(app, "Model")().tel.remote(), NotFoundError, "has no method 'tel'"),
        (lambda app: modal.Cls.from_name(app, "Model")(sise=1).tell.remote(), InvalidError, "no parameter 'sise'"),
        (lambda app: modal.Cls.from_name(app, "Model")(size="1").tell.remote(), InvalidError, "must be of type int"),
        (lambda app: modal.Function.from_name(app, "Model").remote(), InvalidError, "call one of its methods"),
        (lambda app: modal.Cls.from_name(app, "Model")().tell.local(), InvalidError, "not in this process"),
    ],
)
def test_what_is_not_there_is_named(deployed: str, use: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        use(deployed)


def test_bound_functions_follow_the_versions_of_their_class(deployed: str) -> None:
    model = modal.Cls.from_name(deployed, "Model")(name="y", size=3)
    named = modal.Cls.from_name(deployed, "Model")(name="z")
    assert model.tell.remote() == ("one", "y", 3, "")
    assert named.tell.remote() == ("one", "z", 1, "")
    deploy("two")
    assert model.tell.remote() == ("two", "y", 3, "")
    deploy("three", with_size=False)
    assert named.tell.remote() == ("three", "z", "")
    with pytest.raises(InvalidError, match="has no parameter 'size'; it has name"):
        model.tell.remote()
    deploy("four")
    assert model.tell.remote() == ("four", "y", 3, "")


def test_a_generator_method_can_be_the_first_that_is_called(deployed: str) -> None:
    model = modal.Cls.from_name(deployed, "Model")()
    assert list(model.values.remote_gen(1)) == [("one", 0)]
    assert modal.Cls.from_name(deployed, "Model")().values.is_generator


def test_instances_follow_an_app_that_is_stopped_and_deployed_anew(deployed: str) -> None:
    cls = modal.Cls.from_name(deployed, "Model")
    model, plain = cls(name="y", size=3), cls()
    assert (model.tell.remote(), plain.tell.remote()) == (("one", "y", 3, ""), ("one", "x", 1, ""))
    ask(APP_STOP, AppStop(modal.App.lookup(deployed).app_id or "", AppStopReason.STOPPED_BY_USER))
    with pytest.raises(NotFoundError):
        model.tell.remote()
    deploy("anew")
    assert (model.tell.remote(), plain.tell.remote()) == (("anew", "y", 3, ""), ("anew", "x", 1, ""))
    assert model.tell.spawn().get(timeout=30) == ("anew", "y", 3, "")
    assert list(model.tell.map(["a"])) == [("anew", "y", 3, "a")]


def test_options_of_a_class_that_was_looked_up(deployed: str) -> None:
    cls = modal.Cls.from_name(deployed, "Model").with_options(
        timeout=5, secrets=[modal.Secret.from_dict({"A": "b"})], concurrency_limit=1
    )
    assert cls(size=2).tell.remote() == ("one", "x", 2, "")


def test_other_apps_use_it_from_their_containers(deployed: str, app: modal.App) -> None:
    @app.function(serialized=True)
    def use(name: str) -> Any:
        return modal.Cls.from_name(name, "Model")(size=4).tell.remote("inside")

    with app.run():
        assert use.remote(deployed) == ("one", "x", 4, "inside")


def test_the_class_of_an_app_that_was_deployed_from_here_can_be_called_at_once(real_server: RealServer) -> None:
    app = deploy("here", name="here")
    cls = app.registered_classes["Model"]
    assert cls(size=2).tell.remote() == ("here", "x", 2, "")
    until(lambda: cls(size=2).tell.get_current_stats().backlog == 0, "the call to be counted")


def test_containers_of_an_old_version_run_their_exit_hooks(real_server: RealServer, tmp_path: Path) -> None:
    place = str(tmp_path / "said")

    def version(number: int) -> modal.App:
        app = modal.App("versions", image=modal.Image.debian_slim(python_version=PYTHON))

        @app.cls(serialized=True)
        class Model:
            name: str = modal.parameter(default="x")

            @modal.method()
            def tell(self) -> int:
                return number

            @modal.exit()
            def stop(self) -> None:
                with open(place, "a") as file:
                    file.write(f"{number} {self.name}\n")

        modal.runner.deploy_app(app)
        return app

    version(1)
    cls = modal.Cls.from_name("versions", "Model")
    assert (cls().tell.remote(), cls(name="y").tell.remote()) == (1, 1)
    version(2)
    assert (cls().tell.remote(), cls(name="y").tell.remote()) == (2, 2)
    until(lambda: Path(place).exists() and sorted(Path(place).read_text().splitlines()) == ["1 x", "1 y"], "both hooks")
