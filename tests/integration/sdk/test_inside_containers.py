"""The SDK where the user's module is imported again: in a container."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from sdk_server import SdkServer

import modal
from modal._objects import client as client_module
from modal._runtime_context import ContainerContext, enter_container
from modal._sync import run
from modal._wire.messages.function import FunctionSpec, Source, SourceKind
from modal.exception import InvalidError, NotFoundError

FUNCTION = "fu-" + "1" * 22


@pytest.fixture
def container(server: SdkServer, tmp_path: Path) -> Iterator[SdkServer]:
    """This process taken for a container that runs the app of `make_app`."""
    server.specs[FUNCTION] = FunctionSpec("square", Source(SourceKind.MODULE), "im-1")
    server.functions["square"] = square_raw
    enter_container(
        ContainerContext(
            container_id="ta-1", app_id="ap-1", objects={"square": FUNCTION}, socket_path=str(tmp_path / "server.sock")
        )
    )
    try:
        yield server
        if client_module._default is not None:
            run(client_module._default._close())
            client_module._default = None
    finally:
        enter_container(None)


def square_raw(x: int) -> int:
    return x * x


def unknown_raw(x: int) -> int:
    return x


def make_app() -> tuple[modal.App, modal.Function, modal.Function]:
    app = modal.App("inside")
    return app, app.function(name="square")(square_raw), app.function(name="unknown")(unknown_raw)


def test_functions_of_the_app_can_be_called(container: SdkServer) -> None:
    app, square, _ = make_app()
    assert app.app_id == "ap-1"
    assert square.remote(3) == 9
    assert square.object_id == FUNCTION
    assert list(square.map(range(5))) == [0, 1, 4, 9, 16]
    assert square.spawn(4).get() == 16
    assert square.hydrate() is square


def test_a_function_that_was_not_published_is_named(container: SdkServer) -> None:
    _, _, unknown = make_app()
    with pytest.raises(NotFoundError, match="'unknown'"):
        unknown.remote(1)


def test_an_app_cannot_be_run_there(container: SdkServer) -> None:
    app, _, _ = make_app()
    with pytest.raises(InvalidError, match="__main__"), app.run():
        pass


def test_references_to_functions_and_calls_travel(container: SdkServer) -> None:
    _, square, _ = make_app()
    copy = pickle.loads(pickle.dumps(square))
    assert copy.remote(5) == 25
    call = square.spawn(6)
    assert pickle.loads(pickle.dumps(call)).get() == 36
    with pytest.raises(InvalidError, match="Python code"):
        copy.local(1)
