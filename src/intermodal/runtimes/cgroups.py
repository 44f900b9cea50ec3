"""Reads and removes the control groups of containers, on hosts with cgroup v1, v2, or both (hybrid).

All containers of one agent live below one group, `/intermodal/<name>`, in every hierarchy, and all steps of image
builds below `/intermodal/<name>-builds`. The runtime creates them; here are the parts that it does not do: saying
whether memory ran out, and cleaning up after a crash.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from intermodal.model.errors import RuntimeFailure

#: Seconds that the kernel may take to let go of a killed process; it dies on the CPU, which may be busy.
_REMOVAL_TIMEOUT = 30.0
#: The same to stop every process of a container; one that hangs in the kernel cannot be.
_FREEZE_TIMEOUT = 5.0


def data_key(data: Path) -> str:
    """Six hex digits that name the data directory `data` on its machine: in cgroups, interfaces, on /run."""
    return hashlib.sha256(os.fsencode(data)).hexdigest()[:6]


class Cgroups:
    """The control groups below `parent` (a path such as ``/intermodal/1f0c``) in every hierarchy of this machine."""

    def __init__(self, parent: str, mountinfo: str | None = None) -> None:
        text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
        self.parent = parent
        self._roots = list(_hierarchies(text))
        if not self._roots:
            raise RuntimeFailure("No cgroup file system is mounted; limits need one. Mount it at /sys/fs/cgroup.")

    @property
    def unified_only(self) -> bool:
        """Is this a pure cgroup v2 host?"""
        return all(controllers == {"unified"} for _, controllers in self._roots)

    @property
    def has_memory(self) -> bool:
        """Can memory be limited here?"""
        return any(
            "memory" in controllers or ("unified" in controllers and "memory" in _read(root / "cgroup.controllers"))
            for root, controllers in self._roots
        )

    def path(self, name: str) -> str:
        """The path of a container's group, as the runtime takes it."""
        return f"{self.parent}/{name}"

    def prepare(self) -> None:
        """Make the agent's own group, with the weight of the whole machine. Blocking. Raises OSError.

        A new group weighs as much as one process; under load all containers together would get as much as one.
        """
        cpus = os.cpu_count() or 1
        for root, controllers in self._roots:
            group = self._parent(root)
            group.mkdir(parents=True, exist_ok=True)
            for directory in (group.parent, group):
                if "cpu" in controllers:
                    (directory / "cpu.shares").write_text(str(1024 * cpus))
                elif (directory / "cpu.weight").exists():
                    (directory / "cpu.weight").write_text(str(min(100 * cpus, 10_000)))

    def out_of_memory_kills(self, name: str) -> int:
        """How many processes of the container the kernel has killed for want of memory."""
        kills = 0
        for root, controllers in self._roots:
            group = root / self.path(name).lstrip("/")
            if "memory" in controllers:
                kills += _counter(_read(group / "memory.oom_control"))
            elif "unified" in controllers:
                kills += _counter(_read(group / "memory.events"))
        return kills

    def names(self) -> set[str]:
        """The containers that have a group in any hierarchy."""
        found = set()
        for root, _ in self._roots:
            with contextlib.suppress(OSError):
                found |= {entry.name for entry in self._parent(root).iterdir() if entry.is_dir()}
        return found

    def freeze(self, name: str) -> None:
        """Stop every process of the container where it is, until `thaw`. Blocking.

        Raises:
            RuntimeFailure: they could not all be stopped; they run on.
        """
        deadline = time.monotonic() + _FREEZE_TIMEOUT
        self._set_frozen(name, True)
        while not self._is_frozen(name):
            if time.monotonic() > deadline:
                self.thaw(name)
                raise RuntimeFailure(f"The processes of container {name} cannot be paused; one hangs in the kernel.")
            time.sleep(0.001)

    def thaw(self, name: str) -> None:
        """Let the container's processes go on. No error if they do, or have ended."""
        with contextlib.suppress(FileNotFoundError):
            self._set_frozen(name, False)

    def _set_frozen(self, name: str, frozen: bool) -> None:
        for file, words in self._freezers(name):
            file.write_text(words[frozen])

    def _is_frozen(self, name: str) -> bool:
        for file, _ in self._freezers(name):
            if file.name == "freezer.state":
                done = _read(file).strip() == "FROZEN"
            else:
                done = "frozen 1" in _read(file.with_name("cgroup.events")).splitlines()
            if not done:
                return False
        return True

    def _freezers(self, name: str) -> list[tuple[Path, tuple[str, str]]]:
        """The files that stop a container, with what to write to let it run and to stop it."""
        found = []
        for root, controllers in self._roots:
            group = self._parent(root) / name
            if "freezer" in controllers:
                found.append((group / "freezer.state", ("THAWED", "FROZEN")))
            elif self.unified_only:
                found.append((group / "cgroup.freeze", ("0", "1")))
        return found

    def kill(self, name: str) -> None:
        """SIGKILL every process in the container's groups and wait until they are gone. Blocking."""
        self.thaw(name)  # a frozen process does not die
        deadline = time.monotonic() + _REMOVAL_TIMEOUT
        while pids := self.pids(name):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise RuntimeFailure(
                    f"Processes {sorted(pids)} of container {name} do not die; they may hang in the kernel."
                )
            time.sleep(0.005)

    def remove(self, name: str) -> None:
        """Remove the container's groups. No error if there are none. Blocking: a dying process may hold one briefly."""
        for root, _ in self._roots:
            _remove_tree(self._parent(root) / name)

    def remove_parent(self) -> None:
        """Remove the agent's own group where it is empty, and the shared one above it where nobody else uses it."""
        for root, _ in self._roots:
            for group in (self._parent(root), self._parent(root).parent):
                if group == root:
                    break
                with contextlib.suppress(OSError):
                    group.rmdir()

    def _parent(self, root: Path) -> Path:
        return root / self.parent.lstrip("/")

    def pids(self, name: str) -> set[int]:
        """Every process of the container."""
        pids: set[int] = set()
        for root, _ in self._roots:
            for group in _groups(self._parent(root) / name):
                pids |= {int(pid) for pid in _read(group / "cgroup.procs").split()}
        return pids


def _hierarchies(mountinfo: str) -> Iterator[tuple[Path, set[str]]]:
    seen: set[frozenset[str]] = set()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fstype, _, options = after.split(" ", 2)
        fields = before.split()
        controllers = {"unified"} if fstype == "cgroup2" else set(options.split(",")) - {"rw", "ro"}
        # A hierarchy that is mounted again (for some other container) is the same one.
        if fstype not in ("cgroup", "cgroup2") or frozenset(controllers) in seen:
            continue
        seen.add(frozenset(controllers))
        yield Path(fields[4]), controllers


def _counter(text: str) -> int:
    found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        # ENODEV: the group is being removed.
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR):
            return ""
        raise


def _groups(top: Path) -> Iterator[Path]:
    """`top` and all groups below, deepest first."""
    for directory, _, _ in os.walk(top, topdown=False):
        yield Path(directory)


def _remove_tree(top: Path) -> None:
    deadline = time.monotonic() + _REMOVAL_TIMEOUT
    for group in _groups(top):
        while True:
            try:
                group.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise RuntimeFailure(f"The control group {group} cannot be removed: {error.strerror}.") from error
                time.sleep(0.005)
