"""Settings from environment variables and `.modal.toml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from modal.config import (
    Config,
    config,
    config_profiles,
    config_set_active_profile,
    config_set_value,
    current_profile,
)
from modal.exception import InvalidError


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("MODAL_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "modal.toml"
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(path))
    return path


def test_without_a_file_everything_has_its_default() -> None:
    assert Config().to_dict() == {
        "loglevel": "WARNING",
        "logs_timeout": 10.0,
        "reconnect_timeout": 60.0,
        "automount": True,
        "force_build": False,
        "traceback": False,
        "token_id": None,
        "token_secret": None,
        "server_url": None,
        "environment": "main",
    }


def test_environment_variables_win_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[default]\nloglevel = "info"\nautomount = false\n[other]\nloglevel = "ERROR"\n')
    assert config.get("loglevel") == "INFO"
    assert config.get("automount") is False
    assert config.get("loglevel", profile="other") == "ERROR"
    monkeypatch.setenv("MODAL_LOGLEVEL", "debug")
    assert config.get("loglevel") == "DEBUG"
    assert config.get("loglevel", use_env=False) == "INFO"


def test_profiles_are_named_by_variable_or_by_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[default]\n[work]\ntoken_id = "ak-1"\n')
    assert (config_profiles(), current_profile()) == (["default", "work"], "default")
    config_set_active_profile("work")
    assert (current_profile(), config.get("token_id")) == ("work", "ak-1")
    monkeypatch.setenv("MODAL_PROFILE", "default")
    assert config.get("token_id") is None
    with pytest.raises(InvalidError, match="nobody"):
        config_set_active_profile("nobody")


def test_written_values_can_be_read_and_only_by_the_owner(file: Path) -> None:
    config_set_value("token_secret", 'as-"quoted"\n')
    config_set_value("environment", "dev", profile="a b")
    assert config.get("token_secret") == 'as-"quoted"\n'
    assert config.get("environment", profile="a b") == "dev"
    assert file.stat().st_mode & 0o777 == 0o600
    config_set_value("token_secret", None)
    assert config.get("token_secret") is None
    assert "as-" not in repr(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loglevel", "LOUD"),
        ("logs_timeout", "soon"),
        ("logs_timeout", "-1"),
        ("automount", "maybe"),
        ("server_url", "x"),
    ],
)
def test_a_wrong_value_names_its_variable(key: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MODAL_{key.upper()}", value)
    with pytest.raises(InvalidError, match=f"MODAL_{key.upper()}"):
        config.get(key)


@pytest.mark.parametrize("text", ["[default", "loglevel = 'x'\n", "[default]\nautomount = 'perhaps'\n"])
def test_a_broken_file_names_itself(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidError, match=r"modal\.toml"):
        config.get("automount")


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InvalidError, match="colour"):
        config.get("colour")


def test_overriding_sets_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_ENVIRONMENT", "x")
    config.override_locally("environment", "dev")
    value: Any = os.environ["MODAL_ENVIRONMENT"]
    assert (value, config.get("environment")) == ("dev", "dev")
