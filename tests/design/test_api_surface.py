"""The SDK has every documented symbol, with the documented parameters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_every_documented_signature_matches() -> None:
    checker = Path(__file__).parent / "api" / "check_api.py"
    done = subprocess.run([sys.executable, checker], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "311 of 311 documented symbols match" in done.stdout
