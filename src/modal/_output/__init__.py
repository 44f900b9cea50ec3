"""What people see while apps run: the interface, the silent default, and the switch.

The rest of the SDK tells `output()` what happens and never asks whether anyone looks. This module is imported with
`import modal`, so it stays small; the implementations are imported when output is enabled.

Methods may be called from any thread. Between two calls of `enable_output` nobody listens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Optional, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .._wire.messages.app import AppEvent, AppStopReason


class Step(Protocol):
    """One thing that takes a while and has a log, such as an image build step. Ends with `done` or `fail`."""

    def log(self, text: str) -> None:
        """Show a piece of the step's log; line ends as printed."""
        ...

    def done(self, text: str = "") -> None:
        """The step succeeded; `text` adds a detail."""
        ...

    def fail(self, text: str = "") -> None:
        """The step failed; `text` says why."""
        ...


class OutputManager(Protocol):
    """Receives everything that may be shown to the user."""

    def step(self, title: str) -> Step:
        """Begin a step."""
        ...

    def message(self, text: str) -> None:
        """Say one line on behalf of the platform."""
        ...

    def files_sent(self, files: Sequence[str]) -> None:
        """Say which local files and modules travel to the containers; one path each."""
        ...

    def app_started(self, app_id: str, description: str) -> None: ...

    def app_stopped(self, reason: AppStopReason | str) -> None: ...

    def app_event(self, event: AppEvent) -> None:
        """Show logs and status of a running app."""
        ...

    def map_progress(self, name: str, done: int, total: Optional[int]) -> None:
        """`done` inputs of a map over function `name` have their output; `total` is None while inputs still arrive."""
        ...

    def held_back(self) -> AbstractContextManager[None]:
        """Show nothing while the block runs, since someone else has the terminal, and all of it afterwards."""
        ...

    def open(self) -> None:
        """Called once, before anything else."""
        ...

    def close(self) -> None:
        """Called once, at the end: show what was held back and leave the terminal clean."""
        ...


class _SilentStep:
    def log(self, text: str) -> None:
        pass

    def done(self, text: str = "") -> None:
        pass

    def fail(self, text: str = "") -> None:
        pass


class SilentOutput:
    """Shows nothing: what is active unless the user enables output."""

    def step(self, title: str) -> Step:
        return _SilentStep()

    def message(self, text: str) -> None:
        pass

    def files_sent(self, files: Sequence[str]) -> None:
        pass

    def app_started(self, app_id: str, description: str) -> None:
        pass

    def app_stopped(self, reason: AppStopReason | str) -> None:
        pass

    def app_event(self, event: AppEvent) -> None:
        pass

    def map_progress(self, name: str, done: int, total: Optional[int]) -> None:
        pass

    def held_back(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass


_active: OutputManager = SilentOutput()


def output() -> OutputManager:
    """Return the active manager, a silent one when output is not enabled."""
    return _active


def is_silent() -> bool:
    """Whether nothing is shown."""
    return isinstance(_active, SilentOutput)


@contextlib.contextmanager
def using(manager: OutputManager) -> Iterator[OutputManager]:
    """Make `manager` the active one inside the `with` block. An enabled manager further out stays in charge."""
    global _active
    before = _active
    if not is_silent():
        yield before
        return
    manager.open()
    _active = manager
    try:
        yield manager
    finally:
        _active = before
        manager.close()


def create_output(show_progress: bool = True, show_files: bool = False) -> OutputManager:
    """Return the manager that fits this process: live on a terminal, else plain lines.

    Args:
        show_progress: also show what the platform does; False leaves only the logs of user code.
        show_files: list every local file that is sent, instead of a summary.
    """
    import os
    import sys

    on_terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if show_progress and on_terminal:
        from .rich_output import RichOutput

        return RichOutput(sys.stdout, sys.stderr, show_files=show_files)
    from .plain_output import PlainOutput

    return PlainOutput(sys.stdout, sys.stderr, show_progress=show_progress, show_files=show_files)


@contextlib.contextmanager
def enable_output(show_progress: bool = True) -> Iterator[None]:
    """Show the logs of running functions and the progress of apps, on stdout and stderr.

        with modal.enable_output():
            with app.run():
                ...

    What a container prints on stdout goes to stdout, the rest to stderr. On a terminal progress is live, elsewhere
    it is plain lines.

    Args:
        show_progress: False shows only the logs of user code.
    """
    with using(create_output(show_progress)):
        yield
