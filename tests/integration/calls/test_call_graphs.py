"""`FunctionCall.get_call_graph`: the tree of inputs, while they run and after they ended."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from real_server import PYTHON, RealServer, until

import modal
from modal import call_graph
from modal._wire.messages.call import GraphNode, Status
from modal.call_graph import InputInfo, InputStatus, tree_of
from modal.exception import NotFoundError, RemoteError


def shape(info: InputInfo) -> tuple[str, str, list[object]]:
    """Function name, status and children, whose order does not matter."""
    return info.function_name, info.status.name, sorted(map(shape, info.children))


def declare(app: modal.App) -> modal.Function:
    @app.function(serialized=True)
    def leaf(x: int) -> int:
        if x == 3:
            raise ValueError("three")
        return x

    @app.function(serialized=True)
    def branch(x: int) -> int:
        return sum(one for one in leaf.map(range(x), return_exceptions=True) if isinstance(one, int))

    @app.function(serialized=True)
    def root(x: int) -> int:
        call = branch.spawn(x)
        return leaf.remote(1) + call.get()

    return root


def test_nested_calls_are_the_children_of_the_inputs_that_made_them(app: modal.App) -> None:
    root = declare(app)
    with app.run():
        call = root.spawn(4)
        assert call.get(timeout=30) == 1 + 0 + 1 + 2
        [info] = call.get_call_graph()
    leaves = [("leaf", "FAILURE", []), *[("leaf", "SUCCESS", [])] * 3]
    assert shape(info) == ("root", "SUCCESS", [("branch", "SUCCESS", leaves), ("leaf", "SUCCESS", [])])
    assert (info.function_call_id, info.input_id) == (call.object_id, f"in-{call.object_id[3:]}-0")
    assert info.task_id.startswith("ta-")
    # The app has ended: it is all in the journal.
    [after] = modal.FunctionCall.from_id(call.object_id).get_call_graph()
    assert shape(after) == shape(info)


def test_inputs_of_a_map_know_their_containers(app: modal.App) -> None:
    @app.function(serialized=True, concurrency_limit=2)
    def where(x: int) -> str | None:
        import os

        time.sleep(0.01)
        return os.environ["MODAL_TASK_ID"]

    @app.function(serialized=True)
    def root() -> list[str]:
        return list(where.map(range(100)))

    with app.run():
        call = root.spawn()
        said = call.get(timeout=60)
        [info] = call.get_call_graph()
    [after] = modal.FunctionCall.from_id(call.object_id).get_call_graph()
    for graph in (info, after):
        by_input = {int(child.input_id.rpartition("-")[2]): child.task_id for child in graph.children}
        assert [by_input[index] for index in range(100)] == said


def test_what_runs_or_waits_is_pending(app: modal.App, tmp_path: Path) -> None:
    path = str(tmp_path / "go")

    @app.function(serialized=True)
    def inner(path: str) -> None:
        import os

        while not os.path.exists(path):
            time.sleep(0.01)

    @app.function(serialized=True)
    def outer(path: str) -> str | None:
        inner.remote(path)
        return modal.current_input_id()

    with app.run():
        call = outer.spawn(path)

        def inner_runs() -> bool:
            [info] = call.get_call_graph()
            return bool(info.children and info.children[0].task_id)

        until(inner_runs, "the inner call to run")
        [info] = call.get_call_graph()
        assert shape(info) == ("outer", "PENDING", [("inner", "PENDING", [])])
        assert info.task_id != info.children[0].task_id
        (tmp_path / "go").touch()
        assert call.get(timeout=20) == info.input_id


def test_cancelled_and_timed_out_inputs_have_their_own_status(app: modal.App) -> None:
    @app.function(serialized=True, timeout=1)
    def sleep() -> None:
        time.sleep(60)

    with app.run():
        late, cancelled = sleep.spawn(), sleep.spawn()
        cancelled.cancel()
        with pytest.raises(RemoteError):
            cancelled.get()
        with pytest.raises(modal.exception.FunctionTimeoutError):
            late.get(timeout=20)
        assert [call.get_call_graph()[0].status.name for call in (late, cancelled)] == ["TIMEOUT", "TERMINATED"]


async def test_a_graph_can_be_awaited_and_asked_for_in_a_container(app: modal.App) -> None:
    @app.function(serialized=True)
    async def leaf() -> int:
        return 1

    @app.function(serialized=True)
    async def root() -> list[str]:
        call = await leaf.spawn.aio()
        await call.get.aio()
        me = modal.FunctionCall.from_id(modal.current_function_call_id() or "")
        return [one.function_name for info in await me.get_call_graph.aio() for one in (info, *info.children)]

    async with app.run():
        call = await root.spawn.aio()
        assert await call.get.aio(timeout=20) == ["root", "leaf"]
        assert len((await call.get_call_graph.aio())[0].children) == 1


def test_the_graph_of_an_unknown_call_is_an_error(app: modal.App) -> None:
    with pytest.raises(NotFoundError, match="no function call"):
        modal.FunctionCall.from_id("fc-" + "0" * 22).get_call_graph()


def test_a_graph_that_is_too_large_is_cut_with_a_warning(app: modal.App, monkeypatch: pytest.MonkeyPatch) -> None:
    from intermodal.control import call_graph_service

    monkeypatch.setattr(call_graph_service, "MOST_NODES", 5)
    root = declare(app)
    with app.run():
        call = root.spawn(10)
        call.get(timeout=20)
        with pytest.warns(modal.exception.ServerWarning, match="has more inputs; these are 5"):
            [info] = call.get_call_graph()
    assert 1 + len(info.children) + sum(len(one.children) for one in info.children) == 5


def test_a_graph_is_there_after_a_restart_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modal._objects import client as client_module
    from modal._sync import run

    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "modal.toml"))
    monkeypatch.setenv("MODAL_AUTOMOUNT", "0")
    monkeypatch.setattr(client_module, "_default", None)
    seen = []
    call_id = ""
    for _ in range(2):
        with RealServer(tmp_path, database_url="") as server:
            monkeypatch.setenv("MODAL_SERVER_URL", server.url)
            if not call_id:
                app = modal.App("calls-test", image=modal.Image.debian_slim(python_version=PYTHON))
                root = declare(app)
                with app.run():
                    call = root.spawn(4)
                    call.get(timeout=30)
                    call_id = call.object_id
            seen.append(modal.FunctionCall.from_id(call_id).get_call_graph())
            run(client_module.default_client()._close())
    assert seen[0] == seen[1]


def test_nodes_become_a_tree_and_unknown_words_are_failures() -> None:
    nodes = [
        GraphNode("in-1", "fc-1", "f", "m"),
        GraphNode("in-2", "fc-2", "g", "m", Status.INTERNAL_FAILURE, "ta-1", "in-1"),
        GraphNode("in-3", "fc-3", "h", "m", Status.INIT_FAILURE, "", "in-2"),
    ]
    [root] = tree_of(nodes)
    assert (root.status, root.task_id) == (InputStatus.PENDING, "")
    assert (root.children[0].status, root.children[0].children[0].status) == (
        InputStatus.FAILURE,
        InputStatus.INIT_FAILURE,
    )
    assert call_graph.InputStatus(99) is InputStatus.PENDING
