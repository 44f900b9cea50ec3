"""`modal token`, `modal setup`, `modal profile` and `intermodal token`, as commands against a real server."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

Done = subprocess.CompletedProcess[str]


class Machine:
    """A user with a home, and a server of their own that needs no container runtime."""

    def __init__(self, home: Path) -> None:
        self.file = home / "modal.toml"
        chosen = {"DATA_DIR": str(home / "data"), "RUNTIME": "mock", "BUILDER": "memory", "PORT": "0"}
        self.environ = {
            **os.environ,
            **{f"INTERMODAL_{name}": value for name, value in chosen.items()},
            "MODAL_CONFIG_PATH": str(self.file),
        }

    def run(self, module: str, *args: str, stdin: str = "", **environ: str) -> Done:
        return subprocess.run(
            [sys.executable, "-m", module, *args],
            env={**self.environ, **environ},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def modal(self, *args: str, **options: str) -> Done:
        return self.run("modal.cli.main", *args, **options)

    def intermodal(self, *args: str) -> Done:
        return self.run("intermodal.cli", *args)

    def url(self) -> str:
        return str(json.loads(self.intermodal("status", "--json").stdout)["url"])

    def token(self, name: str, *options: str) -> dict[str, str]:
        made = self.intermodal("token", "create", name, "--json", *options)
        assert made.returncode == 0, made.stderr
        found: dict[str, str] = json.loads(made.stdout)
        return found

    def tokens(self, *options: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.intermodal("token", "list", "--json", *options).stdout)
        return listed


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("machine"))
    assert made.intermodal("up").returncode == 0
    yield made
    made.intermodal("down", "--force")


@pytest.fixture
def machine(running: Machine) -> Iterator[Machine]:
    """Without a configuration, and afterwards without tokens."""
    running.file.unlink(missing_ok=True)
    yield running
    for token in running.tokens():
        running.intermodal("token", "revoke", token["token_id"])


def test_tokens_are_made_listed_and_revoked(machine: Machine) -> None:
    made = machine.intermodal("token", "create", "ann", "--role", "admin", "--expires", "90d")
    assert made.returncode == 0, made.stderr
    [(token_id, secret)] = re.findall(r"modal token set --token-id (ak-\w+) --token-secret (as-\w+)", made.stdout)
    other = machine.token("ci", "--role", "read-only")
    ann, ci = machine.tokens()
    assert (ann["name"], ann["role"], ann["state"], ann["created_by"]) == ("ann", "admin", "valid", "local user")
    assert ann["expires_at"] - ann["created_at"] == pytest.approx(90 * 86400)
    assert (ci["token_id"], ci["role"], ci["expires_at"], ci["last_used_at"]) == (
        other["token_id"], "read-only", None, None,
    )  # fmt: skip
    table = machine.intermodal("token", "list").stdout
    assert [line.split()[1] for line in table.splitlines()[1:]] == ["ann", "ci"]
    assert secret not in table + json.dumps(machine.tokens("--all"))
    assert machine.intermodal("token", "revoke", "ann").stdout == (
        f"Revoked the token {token_id} (ann); its connections are closed.\n"
    )
    assert [token["name"] for token in machine.tokens()] == ["ci"]
    assert {token["state"] for token in machine.tokens("--all") if token["name"] == "ann"} == {"revoked"}
    again = machine.intermodal("token", "revoke", "ann")
    assert (again.returncode, again.stderr) == (
        1, "Error: There is no valid token 'ann'; `intermodal token list` shows them.\n",
    )  # fmt: skip


def test_a_name_that_several_have_is_not_enough_to_revoke(machine: Machine) -> None:
    first, second = machine.token("twin"), machine.token("twin")
    refused = machine.intermodal("token", "revoke", "twin")
    assert refused.returncode == 1
    assert first["token_id"] in refused.stderr
    assert second["token_id"] in refused.stderr
    assert machine.intermodal("token", "revoke", first["token_id"]).returncode == 0
    assert machine.intermodal("token", "revoke", "twin").returncode == 0


def test_a_duration_that_is_none_is_one_sentence(machine: Machine) -> None:
    refused = machine.intermodal("token", "create", "x", "--expires", "soon")
    assert (refused.returncode, refused.stderr) == (
        1, "Error: 'soon' is not a duration; it looks like 90d, 12h or 30m.\n",
    )  # fmt: skip


def test_without_a_server_the_command_says_how_to_start_one(tmp_path: Path) -> None:
    refused = Machine(tmp_path).intermodal("token", "list")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"Error: No server answers on {tmp_path}/data. Start it with `intermodal up`")


def test_a_token_is_stored_once_the_server_accepts_it(machine: Machine) -> None:
    token = machine.token("ann")
    where = ["--profile", "box", "--server-url", machine.url()]
    wrong = machine.modal("token", "set", "--token-id", token["token_id"], "--token-secret", "as-wrong", *where)
    assert wrong.returncode == 1
    assert "is not accepted" in wrong.stderr
    assert "Nothing was stored" in wrong.stderr
    assert not machine.file.exists()
    piped = f"{token['token_id']}\n{token['token_secret']}\n"
    done = machine.modal("token", "set", "--token-id", "-", "--token-secret", "-", *where, stdin=piped)
    assert done.returncode == 0, done.stderr
    assert "accepts the token: ann (member)" in done.stdout
    assert token["token_secret"] not in done.stdout + done.stderr
    assert machine.file.stat().st_mode & 0o777 == 0o600
    assert machine.modal("profile", "current").stdout == "box\n"
    shown = json.loads(machine.modal("config", "show").stdout)
    assert (shown["server_url"], shown["token_id"], shown["token_secret"]) == (machine.url(), token["token_id"], "***")
    listed = machine.modal("environment", "list", "--json")  # over HTTP now, with the token
    assert listed.returncode == 0, listed.stderr
    assert machine.tokens()[0]["last_used_at"] is not None
    machine.intermodal("token", "revoke", "ann")
    refused = machine.modal("environment", "list")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"Error: The token 'ann' ({token['token_id']}) was revoked.")


def test_storing_without_a_check_or_without_activating(machine: Machine) -> None:
    chosen = ["--token-id", "ak-1", "--token-secret", "as-1", "--server-url", "http://127.0.0.1:1"]
    unreachable = machine.modal("token", "set", *chosen)
    assert unreachable.returncode == 1
    assert "connection refused" in unreachable.stderr
    done = machine.modal("token", "set", *chosen, "--no-verify", "--profile", "later", "--no-activate")
    assert done.returncode == 0, done.stderr
    assert machine.modal("profile", "current").stdout == "default\n"
    assert machine.modal("profile", "activate", "later").returncode == 0
    assert machine.modal("profile", "current").stdout == "later\n"


def test_variables_that_hide_what_was_stored_are_named(machine: Machine) -> None:
    chosen = ["--token-id", "ak-1", "--token-secret", "as-1", "--no-verify", "--profile", "mine"]
    done = machine.modal("token", "set", *chosen, MODAL_PROFILE="theirs", MODAL_TOKEN_ID="ak-2")
    assert done.returncode == 0
    assert "not in use while MODAL_TOKEN_ID and MODAL_PROFILE is set" in done.stderr


def test_setup_makes_a_token_on_the_local_server_and_only_once(machine: Machine) -> None:
    first = machine.modal("setup")
    assert first.returncode == 0, first.stderr
    kept = machine.file.read_text()
    assert 'token_id = "ak-' in kept
    assert machine.modal("setup").returncode == 0
    assert machine.file.read_text() == kept
    [token] = machine.tokens()
    assert (token["role"], token["source"]) == ("member", "setup")
    machine.intermodal("token", "revoke", token["token_id"])
    mended = machine.modal("setup")
    assert mended.returncode == 0
    assert "was revoked" in mended.stderr
    assert machine.file.read_text() != kept


def test_where_no_server_can_be_started_setup_says_what_else_there_is(tmp_path: Path) -> None:
    refused = Machine(tmp_path).modal("setup", INTERMODAL_RUNTIME="no-such-runtime")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: The local server could not be started: ")
    assert "If a server runs elsewhere, name it with --server-url" in refused.stderr
    assert not (tmp_path / "modal.toml").exists()


def test_new_tokens_say_what_asked_for_them(machine: Machine) -> None:
    done = machine.modal("token", "new", "--source", "wizard", "--profile", "p", "--no-activate", "--no-verify")
    assert done.returncode == 0, done.stderr
    assert "accepts" not in done.stdout
    assert [token["source"] for token in machine.tokens()] == ["wizard"]


def test_a_remote_server_makes_tokens_for_its_admins_and_tells_others_whom_to_ask(machine: Machine) -> None:
    where = ["--server-url", machine.url()]
    for options, accepted in ([], False), (["--role", "admin"], True):
        token = machine.token("boss", *options)
        chosen = ["--token-id", token["token_id"], "--token-secret", token["token_secret"]]
        assert machine.modal("token", "set", *chosen, *where).returncode == 0
        done = machine.modal("token", "new", *where)
        assert (done.returncode == 0) is accepted, done.stderr
        if not accepted:
            assert "Ask one of them to run, on the server's machine, `intermodal token create" in done.stderr
    assert [token["created_by"] for token in machine.tokens()][-1] == "boss"


def test_an_admin_manages_tokens_from_elsewhere(machine: Machine) -> None:
    for name, role in (("boss", "admin"), ("ann", "member")):
        token = machine.token(name, "--role", role)
        chosen = ["--token-id", token["token_id"], "--token-secret", token["token_secret"], "--profile", name]
        assert machine.modal("token", "set", *chosen, "--server-url", machine.url()).returncode == 0
    made = machine.intermodal("token", "create", "ci", "--profile", "boss")
    assert made.returncode == 0, made.stderr
    assert [token["created_by"] for token in machine.tokens("--profile", "boss")] == ["local user"] * 2 + ["boss"]
    assert machine.intermodal("token", "revoke", "ci", "--profile", "boss").returncode == 0
    refused = machine.intermodal("token", "list", "--profile", "ann")
    assert (refused.returncode, "takes the role admin" in refused.stderr) == (1, True)
    unknown = machine.intermodal("token", "list", "--profile", "nobody")
    assert (unknown.returncode, "has no server_url with a token" in unknown.stderr) == (1, True)


def test_at_a_terminal_the_token_is_asked_for_and_its_secret_is_not_shown(machine: Machine) -> None:
    token = machine.token("ann")
    process, terminal = pty.fork()
    if process == 0:
        environ = {**machine.environ, "MODAL_SERVER_URL": machine.url()}
        os.execve(sys.executable, [sys.executable, "-m", "modal.cli.main", "token", "new"], environ)
    said = ""
    for prompt, answer in (("Token id: ", token["token_id"]), ("Token secret: ", token["token_secret"])):
        said += _read_until(terminal, prompt)
        os.write(terminal, answer.encode() + b"\n")
    said += _read_until(terminal, "Stored the token")
    os.close(terminal)
    os.waitpid(process, 0)
    assert token["token_secret"] not in said
    assert "accepts the token: ann (member)" in said


def _read_until(terminal: int, text: str) -> str:
    read, deadline = "", time.monotonic() + 60
    while text not in read:
        assert select.select([terminal], [], [], deadline - time.monotonic())[0], read
        read += os.read(terminal, 4096).decode()
    return read
