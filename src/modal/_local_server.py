"""Reaches the server of this machine when none is configured, starting it when it does not run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

from ._logging import logger
from .exception import ConnectionError

_START_TIMEOUT = 120.0  #: seconds `intermodal up` may take


def local_socket() -> Path:
    """The socket of the local server: `<data directory>/run/server.sock`.

    The data directory is `INTERMODAL_DATA_DIR`, else `/var/lib/intermodal` for root, else
    `~/.local/share/intermodal` (or below `XDG_DATA_HOME`).
    """
    named = os.environ.get("INTERMODAL_DATA_DIR")
    if named:
        directory = Path(named)
    elif os.geteuid() == 0:
        directory = Path("/var/lib/intermodal")
    else:
        directory = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "intermodal"
    return directory.absolute() / "run" / "server.sock"


async def ensure_local_server() -> str:
    """Return the target of the local server, which answers when this returns.

    Any number of processes may race; `intermodal up` lets one of them start it.

    Raises:
        ConnectionError: it does not run and cannot be started; the message has its own reason.
    """
    path = local_socket()
    if not await _answers(path):
        await _start("Started the local Intermodal server in the background; `intermodal down` stops it.")
        if not await _answers(path):
            raise ConnectionError(
                f"The local server was started but does not listen at {path}; see `intermodal status`."
            )
    return f"unix://{path}"


async def revive_local_server() -> bool:
    """Start the local server again if it died; True if it runs again.

    One that was stopped in order has removed its pid file, and stays stopped; one that is just stopping still runs.

    Raises:
        ConnectionError: it cannot be started; the message has its own reason.
    """
    if not _has_died(local_socket().with_name("server.pid")):
        return False
    await _start("The local Intermodal server had died; started it again.")
    return True


def _has_died(pid_file: Path) -> bool:
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"  # dead, and nobody has asked for its exit status


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(str(path))
    except PermissionError:
        raise ConnectionError(
            f"The local server's socket {path} belongs to another user. Run as that user, or choose a data directory "
            "of your own with INTERMODAL_DATA_DIR."
        ) from None
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):  # it hung up first, which is an answer too
        await writer.wait_closed()
    return True


async def _start(announcement: str) -> None:
    logger.debug("starting the local server: %s", " ".join(_command()))
    process = await asyncio.create_subprocess_exec(
        *_command(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the user's program; the server outlives it
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), _START_TIMEOUT)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        raise ConnectionError(
            f"The local server did not start within {_START_TIMEOUT:.0f} s; `intermodal serve` shows why."
        ) from None
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode:
        lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
        reason = lines[-1] if lines else f"`intermodal up` exited with status {process.returncode}"
        for prefix in ("Error: ", "intermodal: "):
            reason = reason[len(prefix) :] if reason.startswith(prefix) else reason
        raise ConnectionError(f"The local server could not be started: {reason}")
    print(announcement, file=sys.stderr)


def _command() -> list[str]:
    beside = Path(sys.executable).parent / "intermodal"
    if beside.is_file():
        return [str(beside), "up", "--quiet"]
    import importlib.util

    if importlib.util.find_spec("intermodal") is None or sys.version_info < (3, 11):
        raise ConnectionError(
            "No server is configured, and none can be started from this environment: the server needs the package "
            "intermodal on Python 3.11 or newer. Set MODAL_SERVER_URL to a server that runs."
        )
    return [sys.executable, "-m", "intermodal.cli", "up", "--quiet"]
