"""Starts a server in the background, and stops the one that runs."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from intermodal.cli.server_probe import ask, holder
from intermodal.settings import Settings
from modal._wire.messages.server import ServerInfo
from modal.exception import ExecutionError, InvalidError

START_TIMEOUT = 60.0  #: seconds a server has to answer after it was started
STOP_MARGIN = 15.0  #: seconds a server has to stop beyond its `stop_grace`
POLL = 0.03  #: seconds between two looks
LOG_LIMIT = 16 * 1024 * 1024  #: bytes; a longer log is moved aside at a start
SPEAKER = "intermodal: "  #: how the line begins in which a server says why it ends


@dataclasses.dataclass(frozen=True)
class Started:
    """The server that runs now, and whether this call started it."""

    info: ServerInfo
    was_running: bool


@dataclasses.dataclass(frozen=True)
class Stopped:
    """The server that was stopped. `containers` is None when it could not say."""

    pid: int
    containers: int | None


def start(settings: Settings) -> Started:
    """Start a server on the data directory unless one runs, and wait until it answers.

    Any number of callers may race: one of them starts it, all return when it answers.

    Raises:
        InvalidError: the data directory cannot be made.
        ExecutionError: the server ended or did not answer in time; the message has its own reason.
    """
    with _one_starter(settings):
        info = _ask_whoever_holds(settings)
        if info is not None:
            return Started(info, True)
        offset = _prepare_log(settings.log_file)
        process = _spawn(settings)
        try:
            return Started(_wait_until_it_answers(settings, process, offset), False)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def stop(settings: Settings, force: bool = False) -> Stopped | None:
    """Stop the server on the data directory and wait until it is gone; None when none runs.

    Args:
        force: kill it at once; the next start cleans up what it leaves behind.

    Raises:
        InvalidError: it belongs to someone else.
        ExecutionError: it does not stop in time.
    """
    pid = holder(settings)
    if pid is None:
        return None
    if not pid:
        raise ExecutionError(f"The server on {settings.data_dir} is just starting or stopping: try again.")
    containers = None if force else _containers(settings)
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        # The pid may have been given to someone else between the two looks.
        if holder(settings) != pid:
            return None
        if force:
            # A pid file that a dead server left tells its clients that it did not want to end, and they start another.
            settings.pid_file.unlink(missing_ok=True)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL if force else signal.SIGTERM)
        patience = settings.stop_grace + STOP_MARGIN
        ready, _, _ = select.select([descriptor], [], [], patience)
    except PermissionError as error:
        raise InvalidError(f"The server (pid {pid}) belongs to another user: stop it as that user or root.") from error
    finally:
        os.close(descriptor)
    if not ready:
        raise ExecutionError(
            f"The server (pid {pid}) has not stopped within {patience:.0f} seconds. `intermodal down --force` kills it."
        )
    return Stopped(pid, containers)


@contextlib.contextmanager
def _one_starter(settings: Settings) -> Iterator[None]:
    """Hold the lock of those who start a server; wait for it."""
    try:
        for directory in (settings.data_dir, settings.run_dir):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = open(settings.run_dir / "up.lock", "w")
    except OSError as error:
        raise InvalidError(
            f"The data directory {settings.data_dir} cannot be used: {error.strerror}. "
            "Choose another with --data-dir or INTERMODAL_DATA_DIR."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ask_whoever_holds(settings: Settings) -> ServerInfo | None:
    """The answer of a running server, waiting for one that is just starting (in the foreground) or stopping."""
    deadline = time.monotonic() + START_TIMEOUT
    while holder(settings) is not None:
        info = ask(settings)
        if info is not None:
            return info
        if time.monotonic() > deadline:
            raise ExecutionError(
                f"A server holds {settings.data_dir} but has not answered for {START_TIMEOUT:.0f} seconds. "
                "`intermodal down --force` kills it."
            )
        time.sleep(POLL)
    return None


def _prepare_log(path: Path) -> int:
    """Move a long log aside; return the size of the log, after which the new server writes."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    if size > LOG_LIMIT:
        path.replace(path.with_name(path.name + ".1"))
        return 0
    return size


def _spawn(settings: Settings) -> subprocess.Popen[bytes]:
    """Run `intermodal serve` with exactly these settings, in a session of its own, so that no Ctrl-C reaches it."""
    chosen = {
        f"INTERMODAL_{item.name.upper()}": str(getattr(settings, item.name)) for item in dataclasses.fields(settings)
    }
    with open(os.open(settings.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        return subprocess.Popen(
            # -P: nothing in the working directory is imported.
            [sys.executable, "-P", "-m", "intermodal.cli", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, **chosen},
            start_new_session=True,
        )


def _wait_until_it_answers(settings: Settings, process: subprocess.Popen[bytes], offset: int) -> ServerInfo:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        info = ask(settings)
        if info is not None:
            return info
        if process.poll() is not None:
            raise ExecutionError(_why_it_ended(settings, process.returncode, offset))
        time.sleep(POLL)
    raise ExecutionError(
        f"The server did not answer within {START_TIMEOUT:.0f} seconds and was stopped. Its log is {settings.log_file}."
    )


def _why_it_ended(settings: Settings, code: int, offset: int) -> str:
    """The reason the server gave in its log, else the last line of it."""
    with open(settings.log_file, "rb") as log:
        log.seek(offset)
        lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith(SPEAKER):
            return line.removeprefix(SPEAKER)
    last = f": {lines[-1]}" if lines else ""
    return f"The server ended with exit code {code}{last}. Its log is {settings.log_file}."


def _containers(settings: Settings) -> int | None:
    with contextlib.suppress(Exception):  # the number is only for people, and the server may be broken
        info = ask(settings)
        return None if info is None else info.containers
    return None
