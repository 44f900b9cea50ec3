"""The public API is typed: examples that must and must not type-check."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "tests" / "typing"


def errors_of(name: str) -> dict[int, str]:
    """The errors of mypy by line, with their codes."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*command, str(EXAMPLES / name)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
    )
    found = re.findall(rf"{name}:(\d+): error: .*\[([a-z-]+)\]", done.stdout)
    assert found or done.returncode == 0, done.stdout + done.stderr
    return {int(line): code for line, code in found}


def test_good_uses_type_check() -> None:
    assert errors_of("must_check.py") == {}


def test_bad_uses_do_not_type_check() -> None:
    lines = (EXAMPLES / "must_not_check.py").read_text().splitlines()
    expected = {
        number: match[1] for number, line in enumerate(lines, 1) if (match := re.search(r"  # ([a-z-]+)$", line))
    }
    assert errors_of("must_not_check.py") == expected
