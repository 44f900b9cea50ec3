"""Writes the OCI runtime specification (`config.json`) of a container: all of its isolation is in this file."""

from __future__ import annotations

import math
import resource
from typing import Any

from intermodal.runtimes.interface import BindMount, Bundle, ExecCommand
from modal._wire.messages.function import Resources

#: What Docker grants by default, less MKNOD, NET_RAW and AUDIT_WRITE.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/fs/selinux",
)
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
MAPPED_IDS = 65_536
OPEN_FILES = 65_536  #: of one container, as far as this machine's own limit allows
MIB = 1 << 20
#: of /dev/shm: data loaders share much between processes. It counts as the container's memory.
SHARED_MEMORY_KIB = 1 << 20


def build_spec(
    bundle: Bundle, cgroup: str, seccomp: dict[str, Any], pids_limit: int, device_cgroup: bool = True
) -> dict[str, Any]:
    """Return the specification for `bundle` in the cgroup path `cgroup` (absolute, below each controller's root)."""
    id_map = [{"containerID": 0, "hostID": bundle.uid_base, "size": MAPPED_IDS}]
    return {
        "ociVersion": "1.0.2",
        "hostname": bundle.hostname,
        "root": {"path": str(bundle.rootfs), "readonly": False},
        "process": _process(bundle),
        "mounts": _system_mounts() + [_bind(mount) for mount in bundle.mounts],
        "linux": {
            "uidMappings": id_map,
            "gidMappings": id_map,
            "namespaces": _namespaces(bundle),
            "cgroupsPath": cgroup,
            "resources": _resources(bundle.resources, pids_limit, device_cgroup),
            "seccomp": seccomp,
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READ_ONLY_PATHS),
            # Slave mounts see what happens to their source, which is asked for; nothing goes the other way.
            "rootfsPropagation": "slave" if any(mount.follows for mount in bundle.mounts) else "private",
        },
    }


def exec_spec(bundle: Bundle, command: ExecCommand) -> dict[str, Any]:
    """Return the description of one more process in the container of `bundle`: no more rights than its first has."""
    process = _process(bundle) | {
        "args": list(command.argv),
        "env": [f"{name}={value}" for name, value in command.env.items()],
        "cwd": command.cwd,
    }
    if command.window is not None:
        size = {"height": command.window.rows, "width": command.window.columns}
        process |= {"terminal": True, "consoleSize": size}
    return process


def _process(bundle: Bundle) -> dict[str, Any]:
    capabilities = list(CAPABILITIES)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    open_files = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": list(bundle.argv),
        "env": [f"{name}={value}" for name, value in bundle.env.items()],
        "cwd": bundle.cwd,
        "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": open_files, "hard": open_files}],
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
    }


def _namespaces(bundle: Bundle) -> list[dict[str, str]]:
    namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")]
    for kind, path in (("user", bundle.userns), ("network", bundle.netns)):
        namespaces.append({"type": kind, "path": str(path)} if path else {"type": kind})
    return namespaces


def _system_mounts() -> list[dict[str, Any]]:
    strict = ["nosuid", "noexec", "nodev"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": strict},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": [*strict, "mode=1777", f"size={SHARED_MEMORY_KIB}k"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": strict},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*strict, "ro"]},
    ]


def _bind(mount: BindMount) -> dict[str, Any]:
    propagation = "rslave" if mount.follows else "rprivate"
    options = ["rbind", propagation, "nosuid", "nodev", "ro" if mount.read_only else "rw"]
    return {"destination": mount.target, "type": "bind", "source": str(mount.source), "options": options}


def _resources(resources: Resources, pids_limit: int, device_cgroup: bool) -> dict[str, Any]:
    limits: dict[str, Any] = {"pids": {"limit": pids_limit}}
    if device_cgroup:
        limits["devices"] = [{"allow": False, "access": "rwm"}]
    cpu: dict[str, int] = {"shares": max(2, round(resources.cpu * 1024))}
    if resources.cpu_limit is not None:
        cpu["period"] = 100_000
        cpu["quota"] = max(1_000, math.ceil(resources.cpu_limit * 100_000))
    limits["cpu"] = cpu
    memory: dict[str, int] = {"reservation": resources.memory * MIB}
    if resources.memory_limit is not None:
        limit = resources.memory_limit * MIB
        # `swap` is memory and swap together: no swap beyond the limit.
        memory = {"reservation": min(resources.memory * MIB, limit), "limit": limit, "swap": limit}
    limits["memory"] = memory
    return limits
