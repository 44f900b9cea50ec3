"""What the owner of `.modal.toml` wrote stays; what is written is whole, and for the owner alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modal import _config_file
from modal.config import config, config_profiles, config_set_active_profile, config_set_value, config_set_values
from modal.exception import InvalidError

WRITTEN = """\
# where I work
[work]   # the big machine
server_url = "https://box:8787" # by cable
active = true

[odd]
unknown = { to = ["us", 1] }
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "modal.toml"))
    monkeypatch.delenv("MODAL_PROFILE", raising=False)
    return tmp_path / "modal.toml"


def test_comments_order_and_other_profiles_stay(file: Path) -> None:
    file.write_text(WRITTEN)
    config_set_values({"token_id": "ak-1", "token_secret": 'as-"1"'}, "work")
    config_set_value("environment", "dev", profile="new one")
    assert file.read_text() == (
        WRITTEN.replace("active = true\n", 'active = true\ntoken_id = "ak-1"\ntoken_secret = "as-\\"1\\""\n')
        + '\n["new one"]\nenvironment = "dev"\n'
    )


def test_activating_moves_the_mark_and_nothing_else(file: Path) -> None:
    file.write_text(WRITTEN)
    config_set_active_profile("odd")
    assert file.read_text() == WRITTEN.replace("active = true\n", "") + "active = true\n"
    config_set_values({"token_id": None}, "work", activate=True)
    assert config.get("server_url") == "https://box:8787"


def test_a_new_file_and_one_that_others_could_read_become_the_owners(file: Path) -> None:
    config_set_value("token_id", "ak-1")
    assert (file.stat().st_mode & 0o777, config.get("token_id")) == (0o600, "ak-1")
    file.chmod(0o644)
    config_set_value("token_id", "ak-2")
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_a_symbolic_link_stays_one(file: Path) -> None:
    (file.parent / "dotfiles").mkdir()
    target = file.parent / "dotfiles" / "modal.toml"
    target.write_text(WRITTEN)
    file.symlink_to(target)
    config_set_value("token_id", "ak-1", "work")
    assert file.is_symlink()
    assert "ak-1" in target.read_text()


def test_a_change_that_fails_changes_nothing(file: Path) -> None:
    file.write_text(WRITTEN)
    with pytest.raises(InvalidError, match="nobody"):
        config_set_active_profile("nobody")
    with pytest.raises(InvalidError, match="server_url"):
        config_set_values({"token_id": "ak-1", "server_url": "box"}, "work")
    assert file.read_text() == WRITTEN
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_makes_no_sense_is_not_overwritten(file: Path) -> None:
    file.write_text("[half")
    with pytest.raises(InvalidError, match="is not valid TOML"):
        config_set_value("token_id", "ak-1")
    assert file.read_text() == "[half"


def test_a_place_where_nothing_can_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "none" / "modal.toml"))
    with pytest.raises(InvalidError, match=r"modal\.toml cannot be written: No such file or directory\."):
        config_set_value("token_id", "ak-1")


def test_writers_at_the_same_time_lose_nothing(file: Path) -> None:
    code = (
        "import sys\nfrom modal.config import config_set_value\n"
        "for number in range(5):\n    config_set_value('environment', 'e', f'p{sys.argv[1]}-{number}')\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(number)]) for number in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert sorted(config_profiles()) == sorted(f"p{one}-{number}" for one in range(3) for number in range(5))


def test_reading_needs_no_library_but_the_standard_one() -> None:
    code = "import sys, modal.config; modal.config.config.to_dict(); assert 'tomlkit' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert _config_file.read() == {}
