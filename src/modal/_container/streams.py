"""stdout and stderr of user code: every write goes straight to the file descriptor, so a crash loses nothing."""

from __future__ import annotations

import io
import sys

_NAMES = {1: "stdout", 2: "stderr"}


def install() -> None:
    """Replace sys.stdout and sys.stderr by unbuffered UTF-8 streams, and print a stack on fatal signals."""
    import faulthandler

    for fd, name in _NAMES.items():
        try:
            raw = io.FileIO(fd, "wb", closefd=False)
        except OSError:
            continue  # started without that descriptor: leave what Python made of it
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True)
        stream.mode = "w"  # type: ignore[misc]  # what sys.stdout has
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    try:
        faulthandler.enable()
    except (OSError, RuntimeError, ValueError):
        return  # no stderr to print to


def flush() -> None:
    """Flush what user code may have put in the place of our streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # closed, or a class of the user's: there is nobody left to tell
            continue


def complain(text: str) -> None:
    """Print a sentence of the runtime to stderr; the container's log shows it."""
    try:
        sys.stderr.write(text + "\n")
    except Exception:  # user code closed it
        return
