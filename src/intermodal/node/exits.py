"""Judges why a container ended, and says it in one sentence. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace

from intermodal.model.container import ContainerExit, ExitCause
from intermodal.runtimes.interface import ProcessExit

_TAIL_LINES = 12
_SIGNALS = frozenset(int(number) for number in signal.Signals)


@dataclass(frozen=True)
class Ending:
    """All that is known of a container's end."""

    process: ProcessExit
    was_ready: bool
    start_error: str = ""  #: what the runner said when it could not load user code
    is_stopping: bool = False  #: it had been asked to stop
    was_killed: bool = False  #: by the agent
    fault: str = ""  #: why the agent killed it unasked
    memory_limit: int | None = None  #: MiB
    stderr_tail: str = ""


def judge(ending: Ending) -> ContainerExit:
    """Return the cause, with the signal or status and a sentence for people."""
    process = ending.process
    cause, detail = _cause(ending)
    return ContainerExit(cause, process.code, process.signal, detail)


def _cause(ending: Ending) -> tuple[ExitCause, str]:
    process = ending.process
    if process.out_of_memory and not (ending.is_stopping and process.code == 0):
        return ExitCause.OUT_OF_MEMORY, _out_of_memory(ending.memory_limit)
    if ending.fault:
        cause = ExitCause.STOPPED if ending.was_ready else ExitCause.START_FAILED
        return cause, _with_tail(ending.fault, "" if ending.was_ready else ending.stderr_tail)
    if ending.start_error:
        return ExitCause.START_FAILED, ending.start_error
    if ending.was_killed:
        return ExitCause.STOPPED, "The container was stopped."
    if ending.is_stopping and process.code == 0:
        return ExitCause.FINISHED, "The container finished when it was asked to."
    how = describe(process)
    if not ending.was_ready:
        sentence = f"The container's process {how} before it had loaded the function."
        return ExitCause.START_FAILED, _with_tail(sentence, ending.stderr_tail)
    cause = ExitCause.EXITED if process.signal is None else ExitCause.SIGNALED
    return cause, f"The container's process {how}."


def describe(process: ProcessExit) -> str:
    """A process's end as the second half of a sentence."""
    if process.signal is None:
        return f"exited with status {process.code}"
    try:
        name = signal.Signals(process.signal).name
    except ValueError:
        name = f"signal {process.signal}"
    return f"was killed by {name}"


def _out_of_memory(limit: int | None) -> str:
    if limit is None:
        return "The container was killed because the machine ran out of memory; request more with `memory=`."
    return f"The container ran out of memory: it needed more than its limit of {limit} MiB. Raise it with `memory=`."


def _with_tail(sentence: str, tail: str) -> str:
    lines = tail.strip().splitlines()[-_TAIL_LINES:]
    return sentence + (" The end of its output:\n" + "\n".join(lines) if lines else "")


def unwrap(process: ProcessExit) -> ProcessExit:
    """Undo how a container's first process (see `init`) passes on that the second one was killed by a signal."""
    if process.code is not None and process.code - 128 in _SIGNALS:
        return replace(process, code=None, signal=process.code - 128)
    return process
