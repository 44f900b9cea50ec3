"""Which files of a mount a container's processes have open. To be asked while they are paused: else it may change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from intermodal.node.mount_table import mounts, proc_lines

_WRITES = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True)
class Use:
    """One way in which a process uses a mount."""

    name: str  #: of the file, as the process knows it; bytes that are no text are surrogates
    writes: bool  #: it may still change the mount


def uses_of(pid: int, path: str) -> list[Use]:
    """How the processes of the container of process `pid` use what is mounted at `path` in it. Raises OSError."""
    ids, device = _mounts_at(pid, path)
    namespace = Path(f"/proc/{pid}/ns/mnt").readlink()
    found: list[Use] = []
    for process in _processes(namespace):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            found += _uses(process, ids, device, path)
    return list(dict.fromkeys(found))


def _mounts_at(pid: int, path: str) -> tuple[set[str], str]:
    """The ids of the mounts at a path, also of those below the topmost one, and the device of that."""
    ids, device = set(), ""
    for one in mounts(proc_lines(Path(f"/proc/{pid}/mountinfo"))):
        if one.path == path:
            ids.add(one.mount_id)
            device = one.device
    return ids, device


def _processes(namespace: Path) -> Iterator[int]:
    """Every process in a mount namespace."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if (folder / "ns/mnt").readlink() == namespace:
                    yield int(folder.name)


def _uses(pid: int, ids: set[str], device: str, path: str) -> Iterator[Use]:
    for link in ("cwd", "root"):
        status = Path(f"/proc/{pid}/{link}").stat()
        if f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}" == device:
            yield Use(f"{path} (the working directory of process {pid})", True)
    for about in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            facts = dict(line.split(":", 1) for line in proc_lines(about) if ":" in line)
            if facts.get("mnt_id", "").strip() in ids:
                flags = int(facts["flags"], 8)
                opened = Path(f"/proc/{pid}/fd/{about.name}")
                # A directory that is open is where files can be made, by names relative to it.
                yield Use(str(opened.readlink()), bool(flags & _WRITES) or opened.is_dir())
    for line in proc_lines(Path(f"/proc/{pid}/maps")):
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith(f"{path}/"):
            yield Use(fields[5], fields[1][1] == "w" and fields[1][3] == "s")
