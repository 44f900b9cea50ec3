from __future__ import annotations

import asyncio
import contextvars
import threading

from modal import _runtime_context


def test_outside_of_containers_everything_says_so() -> None:
    assert _runtime_context.is_local()
    assert _runtime_context.container_context() is None
    assert _runtime_context.current_input_id() is None
    assert _runtime_context.current_function_call_id() is None


def test_a_container_is_not_local() -> None:
    context = _runtime_context.ContainerContext(container_id="ta-1", objects={"f": "fu-1"})
    _runtime_context.enter_container(context)
    try:
        assert not _runtime_context.is_local()
        assert _runtime_context.container_context() is context
        assert context.objects == {"f": "fu-1"}
    finally:
        _runtime_context.enter_container(None)


async def test_each_task_has_its_own_input() -> None:
    async def one(name: str) -> tuple[str | None, str | None]:
        _runtime_context.enter_input((name, "fc-" + name))
        await asyncio.sleep(0)
        return _runtime_context.current_input_id(), _runtime_context.current_function_call_id()

    tasks = [asyncio.create_task(one(name)) for name in ("a", "b")]
    assert await asyncio.gather(*tasks) == [("a", "fc-a"), ("b", "fc-b")]


def test_each_thread_has_its_own_input() -> None:
    def work() -> None:
        contextvars.copy_context().run(_runtime_context.enter_input, ("in-1", "fc-1"))
        seen.append(_runtime_context.current_input_id())

    seen: list[str | None] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
