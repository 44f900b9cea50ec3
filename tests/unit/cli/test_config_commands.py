from __future__ import annotations

import json

import pytest

from modal.cli.main import run_command_line


@pytest.fixture(autouse=True)
def config_file(tmp_path, monkeypatch):
    path = tmp_path / "modal.toml"
    path.write_text(
        '[default]\ntoken_id = "ak-1"\ntoken_secret = "as-secret"\n[work]\nserver_url = "https://box:8787"\n'
    )
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(path))
    for name in ("MODAL_PROFILE", "MODAL_ENVIRONMENT", "MODAL_TOKEN_SECRET"):
        monkeypatch.delenv(name, raising=False)
    return path


def test_config_show_hides_the_secret_unless_asked(capsys):
    assert run_command_line(["config", "show"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["token_id"], shown["token_secret"]) == ("ak-1", "***")
    assert run_command_line(["config", "show", "--no-redact"]) == 0
    assert json.loads(capsys.readouterr().out)["token_secret"] == "as-secret"


def test_profiles_are_listed_and_switched(capsys):
    assert run_command_line(["profile", "current"]) == 0
    assert capsys.readouterr().out == "default\n"
    assert run_command_line(["profile", "activate", "work"]) == 0
    capsys.readouterr()
    assert run_command_line(["profile", "list"]) == 0
    assert capsys.readouterr().out == ("   Profile  Server\n   default  (local)\n*  work     https://box:8787\n")
    assert run_command_line(["profile", "list", "--json"]) == 0
    assert {"name": "work", "active": "true", "server": "https://box:8787"} in json.loads(capsys.readouterr().out)


def test_activating_says_when_a_variable_hides_it(capsys, monkeypatch):
    monkeypatch.setenv("MODAL_PROFILE", "default")
    assert run_command_line(["profile", "activate", "work"]) == 0
    assert capsys.readouterr().err == "MODAL_PROFILE is set, so that `default` is in use here.\n"


def test_an_unknown_profile_gets_near_matches(capsys):
    assert run_command_line(["profile", "activate", "wrok"]) == 1
    assert "There is no profile `wrok` in the configuration file. Did you mean `work`?" in capsys.readouterr().err


def test_a_broken_configuration_file_is_one_sentence(config_file, capsys):
    config_file.write_text("not toml [")
    assert run_command_line(["config", "show"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"Error: The configuration file {config_file} is not valid TOML")
    assert "Traceback" not in err
