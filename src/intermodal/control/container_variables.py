"""Which environment variables a container is started with, and which its runner sets itself.

What a process is started with is in a file on disk (the OCI bundle) and in `/proc`. So the variables of secrets travel
over the runner's socket instead, and are set before any user code runs. That is too late for the few that Python, the
dynamic loader or the C library read as a process starts: those name paths and options, not secrets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_AT_START = re.compile(r"LD_[A-Z0-9_]+|PYTHON[A-Z0-9]+|MALLOC_[A-Z0-9_]+|GLIBC_TUNABLES|LANG|LANGUAGE|LC_[A-Z]+|TZ")
_OURS = "INTERMODAL_"


def split(secret: Mapping[str, str], platform: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the process is started with and what its runner sets; what is the platform's cannot be overridden."""
    free = {name: value for name, value in secret.items() if name not in platform and not name.startswith(_OURS)}
    at_start = {name: value for name, value in free.items() if _AT_START.fullmatch(name)}
    return {**at_start, **platform}, {name: value for name, value in free.items() if name not in at_start}
