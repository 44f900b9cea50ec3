"""The shells of batched functions, sync and async. Batches run one at a time."""

from __future__ import annotations

from time import perf_counter

from .batch import Batch, BatchLoop, BatchTask, NothingToRun
from .main_thread import MainThreadShell
from .task import is_awaitable, run_awaitable
from .tasks import TasksShell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from typing import NoReturn, Optional

    from .channel import Channel
    from .machine import Input
    from .task import Output


class BatchShell(MainThreadShell):
    """A sync batched function."""

    task: BatchTask

    def __init__(self, channel: Channel, task: BatchTask, size: int, wait: float):
        super().__init__(channel, task)
        self.machine = BatchLoop(size, wait, perf_counter)

    def run(self) -> NoReturn:
        while True:
            batch = self._next()
            assert isinstance(batch, Batch)
            outputs = self._run_batch(batch)
            self.end_session(batch)
            with self.lock:
                self._current = None
                for record, payload in outputs:
                    self.outbox.add(record, payload)
                self._flush()
                instructions = self.machine.finish(batch)
                if instructions:
                    self.carry_out(instructions)

    def _run_batch(self, batch: Batch) -> list[Output]:
        task = self.task
        try:
            try:
                self._begin(batch)
                args, kwargs = task.gather(batch)
                value = task.function(*args, **kwargs)
                if is_awaitable(value):
                    value = run_awaitable(value)
                self.leave_if_forked()
                outputs = task.spread(batch, value)
                self._active = None
            except BaseException as exc:
                self._active = None
                return self._batch_failed(batch, exc)
        except BaseException as exc:  # an interrupt that fell between the two lines above
            return self._batch_failed(batch, exc)
        return outputs

    def _batch_failed(self, batch: Batch, exc: BaseException) -> list[Output]:
        self.leave_if_forked(None if isinstance(exc, NothingToRun) else exc)
        return self.task.fail(batch, exc)


class BatchTasksShell(TasksShell):
    """An async batched function."""

    task: BatchTask

    def __init__(self, watched: MainThreadShell):
        super().__init__(watched, 1)
        self._timer: Optional[TimerHandle] = None

    def _begin_more(self) -> None:
        super()._begin_more()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait = self.machine.until_next()
        if wait is not None:
            self._timer = self._loop.call_later(wait, self._begin_more)

    async def _outputs(self, item: Input) -> list[Output]:
        assert isinstance(item, Batch)
        try:
            args, kwargs = self.task.gather(item)
            value = self.task.function(*args, **kwargs)
            results = await value
            self.leave_if_forked()
            return self.task.spread(item, results)
        except NothingToRun as exc:
            return self.task.fail(item, exc)
        except BaseException as exc:
            return self.task.fail(item, self._raised(item, exc))
