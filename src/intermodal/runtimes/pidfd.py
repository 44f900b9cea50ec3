"""Waits for a process by its pidfd, on any event loop, without threads and without taking other children's statuses."""

from __future__ import annotations

import asyncio
import os
import signal

from intermodal.runtimes.interface import ProcessExit


class ChildWaiter:
    """Waits for one child (or orphan adopted as subreaper). `exited` resolves once, with how it ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.pidfd_open(pid)
        self.exited: asyncio.Future[ProcessExit] = self._loop.create_future()
        self._loop.add_reader(self._descriptor, self._reap)

    def signal(self, number: int) -> None:
        """Send a signal; no error if the process has ended."""
        if self.exited.done():
            return
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            pass

    def _reap(self) -> None:
        self._loop.remove_reader(self._descriptor)
        try:
            status = os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED)
        except ChildProcessError:
            status = None  # someone else took the status; all we know is that it is over
        os.close(self._descriptor)
        if self.exited.done():
            return
        if status is None:
            self.exited.set_result(ProcessExit(code=255, signal=None))
        elif status.si_code == os.CLD_EXITED:
            self.exited.set_result(ProcessExit(code=status.si_status, signal=None))
        else:
            self.exited.set_result(ProcessExit(code=None, signal=status.si_status))
