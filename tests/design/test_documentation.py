"""What people can set is documented."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from intermodal.settings import Settings

ROOT = Path(__file__).parents[2]


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    missing = [item.name for item in dataclasses.fields(Settings) if f"`{item.name}`" not in page]
    assert missing == []


def test_the_readme_says_who_it_is_not() -> None:
    assert "not affiliated with Modal Labs" in (ROOT / "README.md").read_text()
