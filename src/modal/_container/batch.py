"""Batches: single inputs gathered into one call whose arguments are lists, and its result given back one by one.

A batch begins when it is full, or when the time to wait has passed since its first input came. It takes the place of an
input in the loop: it is timed out and stopped as a whole. An input that is cancelled in it only loses its result, until
all are: then the batch is interrupted.
"""

from __future__ import annotations

from .machine import CANCELLED, Input, InputLoop
from .task import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from inspect import BoundArguments, Signature
    from typing import Any, Callable, Optional

    from .task import Output


class Batch(Input):
    """Inputs that run together. Its ids are those of the first."""

    __slots__ = ("failed", "gathered", "members")

    def __init__(self, members: list[Input]):
        first = members[0]
        super().__init__(first.input_id, first.call_id, None, None)
        self.members = members
        self.gathered: list[Input] = []  #: the members whose arguments are in the call, in order
        self.failed: list[tuple[Input, BaseException]] = []  #: those whose arguments do not fit


class BatchLoop(InputLoop):
    """The input loop of a batched function: `take` gives batches.

    Args:
        size: inputs in a batch at most.
        wait: seconds that the first input of a batch waits for others at most.
        clock: seconds on a clock that never goes back.
    """

    def __init__(self, size: int, wait: float, clock: Callable[[], float]):
        super().__init__()
        self._size = size
        self._wait = wait
        self._clock = clock

    def until_next(self) -> Optional[float]:
        if not self.queue or self.running:
            return None
        if len(self.queue) >= self._size:
            return 0.0
        return max(0.0, self.queue[0].arrived + self._wait - self._clock())

    def take(self) -> Optional[Input]:
        if self.until_next() != 0.0:
            return None
        batch = Batch([self.queue.popleft() for _ in range(min(self._size, len(self.queue)))])
        self.running[batch.input_id] = batch
        return batch

    def _run_inputs(self, header: dict[str, Any], body: memoryview, line: Any) -> list[Any]:
        before = len(self.queue)
        instructions = super()._run_inputs(header, body, line)
        now = self._clock()
        for index in range(before, len(self.queue)):
            self.queue[index].arrived = now
        return instructions

    def _cancel_running(self, input_id: str) -> list[Any]:
        for batch in self.running.values():
            assert isinstance(batch, Batch)
            for member in batch.members:
                if member.input_id == input_id:
                    member.interrupted = CANCELLED
            if all(member.interrupted for member in batch.members):
                return self._interrupt(batch, CANCELLED)
        return []


class BatchTask(Task):
    """A batched function, and how batches look on the wire."""

    _signature: Optional[Signature] = None

    def gather(self, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the one call: of each, the list of its values. Inputs that do not fit are set aside.

        Raises:
            NothingToRun: none fits.
        """
        bound: list[BoundArguments] = []
        for member in batch.members:
            member.started = batch.started
            try:
                one = self._bind(member)
                if bound and _shape(one) != _shape(bound[0]):
                    raise TypeError(f"{self.name}() got other arguments than the first input of its batch.")
            except Exception as exc:  # of the user's classes, while unpickling, too
                batch.failed.append((member, exc))
            else:
                bound.append(one)
                batch.gathered.append(member)
        if not bound:
            raise NothingToRun
        args = tuple(list(values) for values in zip(*(one.args for one in bound)))
        kwargs = {name: [one.kwargs[name] for one in bound] for name in bound[0].kwargs}
        return args, kwargs

    def spread(self, batch: Batch, results: Any) -> list[Output]:
        """The output of each input, from what the function returned."""
        outputs = self._misfits(batch)
        count = len(batch.gathered)
        if not isinstance(results, list) or len(results) != count:
            got = f"one of {len(results)}" if isinstance(results, list) else _a(results)
            return outputs + self._all_failed(batch, self._wrong_result(count, got))
        for member, result in zip(batch.gathered, results):
            member.interrupted = member.interrupted or batch.interrupted
            if member.interrupted == CANCELLED:
                outputs.append(self._interrupted(member))
                continue
            try:
                outputs.append(self.succeeded(member, *self.value(result)))
            except Exception as exc:  # this result cannot be pickled
                outputs.append(self.failed(member, exc))
        return outputs

    def fail(self, batch: Batch, exc: BaseException) -> list[Output]:
        """The output of each input of a batch whose code raised `exc`."""
        if not batch.gathered and not batch.failed:  # interrupted before it began
            batch.gathered = batch.members
        return self._misfits(batch) + self._all_failed(batch, exc)

    def _bind(self, member: Input) -> BoundArguments:
        if self._signature is None:
            from inspect import signature

            self._signature = signature(self.function)
        args, kwargs = self.arguments(member)
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        bound.apply_defaults()  # an argument is a list in every batch, whoever gave it
        return bound

    def _misfits(self, batch: Batch) -> list[Output]:
        for member, _ in batch.failed:
            member.interrupted = member.interrupted or batch.interrupted
        return [self.failed(member, exc) for member, exc in batch.failed]

    def _all_failed(self, batch: Batch, exc: BaseException) -> list[Output]:
        outputs: list[Output] = []
        shared: Optional[Output] = None  # pickled once: a traceback may be large
        for member in batch.gathered:
            member.started = batch.started
            member.interrupted = member.interrupted or batch.interrupted
            if member.interrupted:
                outputs.append(self._interrupted(member))
                continue
            shared = shared or self.failed(member, exc)
            outputs.append(({**shared[0], "input_id": member.input_id}, shared[1]))
        return outputs

    def _wrong_result(self, count: int, got: str) -> Exception:
        from modal.exception import InvalidError

        return InvalidError(
            f"The batched function {self.name} must return a list with one result for each of the {count} "
            f"input{'s' if count != 1 else ''} of its batch, in their order, but it returned {got}."
        )


class NothingToRun(Exception):
    """No input of a batch has arguments that fit."""


def _shape(bound: BoundArguments) -> tuple[int, tuple[str, ...]]:
    return len(bound.args), tuple(sorted(bound.kwargs))


def _a(value: Any) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
