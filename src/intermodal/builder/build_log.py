"""From buildah's output to what people read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from intermodal.builder.interface import BuildLog

_STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP (\d+)/(\d+): ")
_ERROR = 'building at STEP "'
#: Lines about buildah's own doings.
_NOISE = re.compile(r"(--> (?:Using cache )?[0-9a-f]{11,64}|COMMIT \S+|Successfully tagged \S+|[0-9a-f]{64})\s*\Z")
_RUN_STATUS = re.compile(r"(?:error )?while running runtime: exit status (\d+)")
TAIL_LINES = 30
_TAIL_CHARS = 8000


class StepLog:
    """Passes output on; knows which step runs and how its output ended.

    buildah names steps by the Dockerfile, which holds our additions; `titles` says what to call them instead.
    """

    def __init__(self, log: BuildLog, titles: Sequence[str], *, quiet: bool) -> None:
        """`quiet`: the only step was already announced, do not repeat its title."""
        self._log = log
        self._titles = titles
        self._quiet = quiet
        self._raw = ""  #: the step as buildah names it
        self.current = ""  #: title of the step that runs
        self.tail: list[str] = []  #: the last lines of its output

    def line(self, line: str) -> None:
        if step := _STEP.match(line):
            self._raw = line[step.end() :].rstrip("\n")
            self._begin(int(step[1]))
            return
        if _NOISE.match(line):
            return
        if _ERROR in line:
            reason = self._reason(line)
            status = _RUN_STATUS.match(reason)
            line = f"The step ended with exit status {status[1]}.\n" if status else reason
        self.tail.append(line)
        del self.tail[:-TAIL_LINES]
        self._log.write(line)

    def _reason(self, line: str) -> str:
        """What follows the step in buildah's error. The step is quoted as it is, with the quotes that it holds."""
        step, end = f'{_ERROR}{self._raw}": ', '": '
        return line.partition(step)[2] or line.rpartition(end)[2]

    def _begin(self, number: int) -> None:
        position = number - 2  # FROM is the first
        if 0 <= position < len(self._titles):
            self.current = self._titles[position]
            self.tail.clear()
            if self.current and not self._quiet:
                self._log.write(f"=> {self.current}\n")


def failure_text(command: str, tail: Sequence[str]) -> str:
    """The message of a failed step."""
    output = "".join(tail).strip()
    if len(output) > _TAIL_CHARS:
        output = "…" + output[-_TAIL_CHARS:]
    return f"Image build failed at: {command}" + (f"\n{output}" if output else "")
