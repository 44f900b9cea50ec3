"""A container's life as a list of small steps: one hook a concern, one method a moment.

For each container the agent calls, on every hook in the list's order, `prepare`, then (once the process runs)
`started`, then (once the process is gone) `exited`; and `release` in reverse order. `release` is also called when a
start failed, maybe without `prepare` having run or finished, so it frees what is there and is idempotent. Hooks raise
`intermodal.model.errors.RuntimeFailure` or OSError, or `InvalidError` for what people have asked for.
"""

from __future__ import annotations

from intermodal.node.container import Container


class Hook:
    """Does nothing at any moment; a hook overrides the moments that concern it."""

    async def open(self) -> None:
        """Once, before any container: undo what a crashed agent left, prepare what containers share."""

    async def prepare(self, container: Container) -> None:
        """Before the process is started."""

    async def started(self, container: Container) -> None:
        """The process runs."""

    def end_waits(self, container: Container) -> None:
        """The process was killed and does not end: end what it may be waiting for in the kernel. Idempotent."""

    async def exited(self, container: Container) -> None:
        """The process is gone; what it said last is still to be read."""

    async def release(self, container: Container) -> None:
        """Free everything of this container."""

    async def close(self) -> None:
        """Once, after every container is gone. Idempotent; also called when `open` failed."""
