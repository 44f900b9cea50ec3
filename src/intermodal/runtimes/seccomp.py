"""Turns the distribution's seccomp profile into the form that OCI runtimes read.

The profile (the containers project's `seccomp.json`) has conditions, which the OCI form has not: rules for some
architectures, capabilities or kernels. They are decided here. What only a process that makes containers of its own
needs (mounting, new namespaces, keyrings) is taken out, since it opens much of the kernel to hostile code. So are the
system calls of other architectures (32-bit programs), which also made up 16 of the 19 ms that loading the filter took.
"""

from __future__ import annotations

import errno
import json
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any

from intermodal.model.errors import MissingTool, RuntimeFailure

PROFILE = Path("/usr/share/containers/seccomp.json")

#: Removed from every allowing rule.
_WITHHELD = frozenset(
    [
        "mount",
        "umount",
        "umount2",
        "move_mount",
        "fsopen",
        "fsmount",
        "fsconfig",
        "fspick",
        "open_tree",
        "mount_setattr",
        "pivot_root",
        "setns",
        "unshare",
        "keyctl",
        "add_key",
        "request_key",
        "clone",
        "clone3",
    ]
)
_NAMESPACE_FLAGS = 0x7E020000  # every CLONE_NEW* but CLONE_NEWTIME, which clone(2) cannot take
_ARCHITECTURES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}


def load_profile(capabilities: Collection[str], path: Path = PROFILE, machine: str = "") -> dict[str, Any]:
    """Return OCI `linux.seccomp` for processes with `capabilities`. Raises RuntimeFailure."""
    try:
        profile = json.loads(path.read_text())
    except FileNotFoundError:
        raise MissingTool(str(path), "golang-github-containers-common", "restrict system calls of containers") from None
    except (OSError, ValueError) as error:
        raise RuntimeFailure(f"The seccomp profile {path} cannot be read ({error}); reinstall it.") from error
    return translate(profile, capabilities, machine or platform.machine())


def translate(profile: dict[str, Any], capabilities: Collection[str], machine: str) -> dict[str, Any]:
    """Decide the conditions of `profile` for a machine (as `uname -m` says) and a set of capabilities."""
    if machine not in _ARCHITECTURES:
        raise RuntimeFailure(f"Machines of type {machine} are not supported; use x86_64 or aarch64.")
    short_name, architecture = _ARCHITECTURES[machine]
    rules = [rule for entry in profile["syscalls"] if (rule := _rule(entry, capabilities, short_name))]
    refused = sorted(_WITHHELD - {"clone", "clone3"})
    rules.append({"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM})
    namespaceless = {"index": 0, "value": _NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    rules.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [namespaceless]})
    # The flags of clone3 are behind a pointer, where a filter cannot look; libc falls back to clone on ENOSYS.
    rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS})
    translated = {"defaultAction": profile["defaultAction"], "architectures": [architecture], "syscalls": rules}
    if "defaultErrnoRet" in profile:
        translated["defaultErrnoRet"] = profile["defaultErrnoRet"]
    return translated


def _rule(entry: dict[str, Any], capabilities: Collection[str], architecture: str) -> dict[str, Any] | None:
    if not _applies(entry, capabilities, architecture):
        return None
    names = [name for name in entry["names"] if name not in _WITHHELD]
    if not names:
        return None
    rule: dict[str, Any] = {"names": names, "action": entry["action"]}
    if entry.get("args"):
        rule["args"] = entry["args"]
    if "errnoRet" in entry:
        rule["errnoRet"] = entry["errnoRet"]
    return rule


def _applies(entry: dict[str, Any], capabilities: Collection[str], architecture: str) -> bool:
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if architecture in excludes.get("arches", []):
        return False
    if any(capability not in capabilities for capability in includes.get("caps", [])):
        return False
    return not any(capability in capabilities for capability in excludes.get("caps", []))
