"""The words that say which local files travel."""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from pathlib import Path

from .progress import plural

SHOWN = 4  #: names in the summary line


def summarize_files(files: Sequence[str]) -> str:
    """One line: how many files and where they come from. "" when there are none."""
    paths = sorted({os.path.normpath(path) for path in files})
    if not paths:
        return ""
    shown = [_short(path) for path in paths]
    if len(paths) > SHOWN:
        folders = collections.Counter(str(Path(path).parent) for path in shown)
        shown = [f"{count} from {folder}" for folder, count in folders.most_common()]
    if len(shown) > SHOWN:
        shown = shown[:SHOWN] + ["…"]
    return f"Sending {plural(len(paths), 'local file')}: {', '.join(shown)}"


def list_files(files: Sequence[str]) -> list[str]:
    """A line for the count and one for each file."""
    paths = sorted({os.path.normpath(path) for path in files})
    return [f"Sending {plural(len(paths), 'local file')}:", *(f"  {_short(path)}" for path in paths)] if paths else []


def _short(path: str) -> str:
    """Relative to the working directory when the path is below it."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
