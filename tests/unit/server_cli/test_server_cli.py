from __future__ import annotations

import json
import os
import socket

import click
import pytest

from intermodal.cli import doctor
from intermodal.cli.background import LOG_LIMIT, _prepare_log
from intermodal.cli.doctor import Finding, State, examine
from intermodal.cli.main import intermodal_cli, run_command_line
from intermodal.settings import Settings
from modal.exception import InternalFailure


def find(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_every_command_and_option_has_help():
    for name, command in intermodal_cli.commands.items():
        assert command.help, name
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{name} {param.opts}"


def test_a_missing_tool_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = list(doctor._tools(Settings(data_dir=tmp_path)))
    assert find(findings, "runc") == Finding(
        "runc", State.FAIL, "not found; it runs containers", "apt-get install -y runc"
    )
    assert find(findings, "nft").fix == "apt-get install -y nftables"
    assert find(findings, "mmdebstrap").state is State.WARN


def test_a_port_in_use_is_found(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (finding,) = doctor._port(Settings(data_dir=tmp_path, port=port))
    assert finding.state is State.FAIL
    assert f"127.0.0.1:{port} cannot be opened" in finding.text


def test_little_disk_space_is_found(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": doctor.DISK_FAIL - 1})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    finding = find(list(doctor._data_directory(Settings(data_dir=tmp_path / "not" / "there"))), "disk space")
    assert finding.state is State.FAIL
    assert "INTERMODAL_DATA_DIR" in finding.fix


def test_a_check_that_breaks_is_a_failed_finding(tmp_path):
    def _broken_thing(settings: Settings) -> list[Finding]:
        raise InternalFailure("it broke")

    assert doctor._run(_broken_thing, Settings(data_dir=tmp_path)) == [
        Finding("broken thing", State.FAIL, "could not be checked: it broke")
    ]


def test_doctor_exits_with_1_when_something_fails(tmp_path, monkeypatch, capsys):
    found = [Finding("a", State.OK, "fine"), Finding("b", State.FAIL, "missing", "apt-get install -y b")]
    monkeypatch.setattr(doctor, "examine", lambda settings: found)
    assert run_command_line(["doctor", "--data-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "ok    a: fine\nfail  b: missing\n      fix: apt-get install -y b\n"
    assert run_command_line(["doctor", "--json", "--data-dir", str(tmp_path)]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is False
    assert printed["checks"][1] == {"name": "b", "state": "fail", "text": "missing", "fix": "apt-get install -y b"}


@pytest.mark.skipif(os.geteuid() != 0, reason="idmapped mounts need root")
def test_doctor_leaves_nothing_in_the_data_directory(tmp_path):
    examine(Settings(data_dir=tmp_path, port=-1))
    assert list(tmp_path.iterdir()) == []


def test_a_long_log_is_moved_aside(tmp_path):
    log = tmp_path / "server.log"
    assert _prepare_log(log) == 0
    log.write_bytes(b"x" * 10)
    assert _prepare_log(log) == 10
    os.truncate(log, LOG_LIMIT + 1)
    assert _prepare_log(log) == 0
    assert not log.exists()
    assert (tmp_path / "server.log.1").exists()


def test_an_unknown_command_is_a_usage_error(capsys):
    assert run_command_line(["strat"]) == 2
    assert "No such command 'strat'" in capsys.readouterr().err
