"""Which Python an image has, read from its files: starting it would take a container."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from intermodal.overlay.layer_tree import LayerTree

_NAMES = ("python", "python3")
_PATCHLEVEL = re.compile(rb'#define\s+PY_VERSION\s+"(\d+\.\d+\.\d+)[^"]*"')
_SERIES = re.compile(r"python(3\.\d+)\Z")
#: Where interpreters keep their exact version as text in the binary or library.
_EMBEDDED = re.compile(rb"(?<![0-9.])(3\.\d{1,2}\.\d{1,2})(?:\+)?\x00")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def probe_python(tree: LayerTree, path: str) -> tuple[str, str]:
    """The interpreter that `python` (or `python3`) on `path` names, and its version like "3.11.7"; ("", "") if none."""
    for name in _NAMES:
        for directory in (path or _DEFAULT_PATH).split(":"):
            candidate = posixpath.join(directory, name)
            if not candidate.startswith("/"):
                continue
            resolved = tree.resolve(candidate)
            found = tree.find(candidate)
            if resolved is not None and found is not None and found.is_file():
                version = _version(tree, resolved, found)
                if version:
                    return candidate, version
    return "", ""


def _version(tree: LayerTree, resolved: str, binary: Path) -> str:
    series = _SERIES.search(posixpath.basename(resolved))
    if series is None:
        return ""
    prefix = posixpath.dirname(posixpath.dirname(resolved))
    header = tree.find(f"{prefix}/include/python{series[1]}/patchlevel.h")
    if header is not None and (match := _PATCHLEVEL.search(header.read_bytes())):
        return match[1].decode()
    libraries = [f"{prefix}/lib/libpython{series[1]}.so.1.0", f"/usr/lib/x86_64-linux-gnu/libpython{series[1]}.so.1.0"]
    for path in [binary, *(found for library in libraries if (found := tree.find(library)))]:
        for match in _EMBEDDED.finditer(path.read_bytes()):
            if match[1].decode().startswith(series[1] + "."):
                return match[1].decode()
    return ""
