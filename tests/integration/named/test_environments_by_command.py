"""Environments as their users see them: through the command line, against a real server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from named_server import NamedServer, failed, succeeded

SAY = """
    import os
    import modal
    app = modal.App("say")

    @app.function()
    def where():
        return os.environ["MODAL_ENVIRONMENT"]

    @app.local_entrypoint()
    def main():
        print(where.remote())
"""
WORD = """
    import os
    import modal
    app = modal.App("word")

    @app.function(secrets=[modal.Secret.from_name("word")])
    def word():
        return os.environ["WORD"]
"""
STAY = """
    import time
    import modal
    app = modal.App("stay")

    @app.function()
    def stay():
        print("running now", flush=True)
        time.sleep(600)
"""


def listed(server: NamedServer) -> dict[str, dict[str, str]]:
    found = json.loads(succeeded(server.modal("environment", "list", "--json")))
    return {one["name"]: one for one in found}


def test_an_environment_is_made_listed_renamed_and_deleted(server: NamedServer) -> None:
    assert "dev-1" not in listed(server)
    succeeded(server.modal("environment", "create", "dev-1"))
    assert listed(server)["dev-1"] == {"name": "dev-1", "web_suffix": "dev-1", "active": "false"}
    assert listed(server)["main"] == {"name": "main", "web_suffix": "", "active": "true"}
    failed(server.modal("environment", "create", "dev-1"), "There is an environment 'dev-1' already")
    said = succeeded(server.modal("environment", "update", "dev-1", "--set-name", "QA", "--set-web-suffix", "q"))
    assert "`QA`" in said
    assert listed(server)["QA"]["web_suffix"] == "q"
    succeeded(server.modal("environment", "delete", "QA", "--confirm"))
    assert "QA" not in listed(server)
    table = succeeded(server.modal("environment", "list"))
    assert table.splitlines()[:2] == ["   Name  Web suffix", "*  main"]


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 65, "..", "a/b", "a\nb"])
def test_a_name_that_is_none_is_refused(server: NamedServer, name: str) -> None:
    failed(server.modal("environment", "create", name), "must have 1 to 64 letters")


def test_web_suffixes_are_checked_and_belong_to_one_environment(server: NamedServer) -> None:
    succeeded(server.modal("environment", "create", "Web.One"))
    succeeded(server.modal("environment", "create", "web-one"))
    assert [listed(server)[name]["web_suffix"] for name in ("Web.One", "web-one")] == ["web-one", "web-one-2"]
    failed(server.modal("environment", "update", "Web.One", "--set-web-suffix", "web-one-2"), "is that of", "web-one")
    failed(server.modal("environment", "update", "Web.One", "--set-web-suffix", "Not-This"), "lower-case letters")
    failed(server.modal("environment", "update", "Web.One"), "--set-name or --set-web-suffix", code=2)
    for name in ("Web.One", "web-one"):
        succeeded(server.modal("environment", "delete", name, "--confirm"))


def test_the_default_environment_stays(server: NamedServer) -> None:
    failed(server.modal("environment", "delete", "main", "--confirm"), "'main' is the default one", "cannot be deleted")
    failed(server.modal("environment", "update", "main", "--set-name", "x"), "cannot be renamed")


def test_deleting_asks_first(server: NamedServer) -> None:
    succeeded(server.modal("environment", "create", "kept"))
    failed(server.modal("environment", "delete", "kept"), "needs a confirmation", "--confirm", code=2)
    assert "kept" in listed(server)
    failed(server.modal("environment", "delete", "not-there"), "There is no environment 'not-there'; there are: main")
    succeeded(server.modal("environment", "delete", "kept", "--confirm"))


def test_a_person_at_a_terminal_is_asked(server: NamedServer) -> None:
    succeeded(server.modal("environment", "create", "asked"))

    def answer(line: bytes) -> tuple[int, str]:
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "modal.cli.main", "environment", "delete", "asked"]
        with subprocess.Popen(command, env=server.environ, stdin=slave, stdout=slave, stderr=slave) as process:
            os.close(slave)
            said = b""
            while b"[y/N]" not in said:
                said += os.read(master, 1024)
            os.write(master, line)
            with contextlib.suppress(OSError):  # the terminal's other end is closed as the command ends
                while chunk := os.read(master, 1024):
                    said += chunk
        os.close(master)
        return process.returncode, said.decode()

    code, said = answer(b"\n")
    assert code == 1
    assert "Nothing was changed." in said
    assert "asked" in listed(server)
    code, said = answer(b"y\n")
    assert code == 0
    assert "Deleted the environment `asked`." in said
    assert "asked" not in listed(server)


def test_the_environment_is_chosen_by_option_variable_and_profile(server: NamedServer) -> None:
    app = server.program(SAY)
    for name in ("one", "two", "three"):
        succeeded(server.modal("environment", "create", name))
    assert succeeded(server.modal("run", app)) == "main\n"
    failed(server.modal("config", "set-environment", "trhee"), "There is no environment 'trhee'")
    succeeded(server.modal("config", "set-environment", "three"))
    assert listed(server)["three"]["active"] == "true"
    assert succeeded(server.modal("run", app)) == "three\n"
    assert succeeded(server.modal("run", app, MODAL_ENVIRONMENT="two")) == "two\n"
    assert succeeded(server.modal("run", "--env", "one", app, MODAL_ENVIRONMENT="two")) == "one\n"
    renamed = server.modal("environment", "update", "three", "--set-name", "3")
    assert "modal config set-environment 3" in renamed.stderr
    failed(server.modal("run", app), "There is no environment 'three'; there are: main, 3, one, two")
    Path(server.environ["MODAL_CONFIG_PATH"]).unlink()
    failed(server.modal("run", "--env", "four", app), "There is no environment 'four'", "modal environment create")
    for name in ("one", "two", "3"):
        succeeded(server.modal("environment", "delete", name, "--confirm"))


def test_names_in_one_environment_do_not_meet_those_in_another(server: NamedServer) -> None:
    app = server.program(WORD)
    for name in ("red", "blue"):
        succeeded(server.modal("environment", "create", name))
        succeeded(server.modal("secret", "create", "word", f"WORD={name}", "--env", name))
    for name in ("red", "blue"):
        assert succeeded(server.modal("run", "-e", name, app)) == f"{name}\n"
    failed(server.modal("run", app), "There is no secret 'word' in the environment 'main'")
    succeeded(server.modal("environment", "update", "red", "--set-name", "crimson"))
    assert succeeded(server.modal("run", "-e", "crimson", app)) == "red\n"
    succeeded(server.modal("environment", "create", "red"))
    failed(server.modal("run", "-e", "red", app), "There is no secret 'word' in the environment 'red'")
    for name in ("red", "blue", "crimson"):
        succeeded(server.modal("environment", "delete", name, "--confirm"))


def test_deleting_an_environment_stops_its_apps_and_deletes_its_secrets(server: NamedServer) -> None:
    succeeded(server.modal("environment", "create", "doomed"))
    succeeded(server.modal("secret", "create", "word", "WORD=1", "-e", "doomed"))
    app = server.program(STAY, "stay.py")
    command = [sys.executable, "-m", "modal.cli.main", "run", "-e", "doomed", str(app)]
    with subprocess.Popen(
        command, env=server.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if "running now" in line:
                break
        succeeded(server.modal("environment", "delete", "doomed", "--confirm"))
        assert "was stopped" in run.communicate(timeout=60)[1]
        assert run.returncode == 1
    deadline = time.monotonic() + 30
    while json.loads(succeeded(server.intermodal("status", "--json")))["containers"]:
        assert time.monotonic() < deadline, "a container outlived its environment"
    succeeded(server.modal("environment", "create", "doomed"))
    assert json.loads(succeeded(server.modal("secret", "list", "-e", "doomed", "--json"))) == []
    succeeded(server.modal("environment", "delete", "doomed", "--confirm"))


SHOP = """
    import os
    import modal
    app = modal.App("shop")

    @app.function(schedule=modal.Period(days=1))
    def who():
        return os.environ["MODAL_ENVIRONMENT"]

    @app.function(keep_warm=1)
    def ask_who():
        kept = modal.Dict.from_name("kept", create_if_missing=True)
        kept["asked"] = kept.get("asked", 0) + 1
        return modal.Function.from_name("shop", "who").remote(), kept["asked"]
"""
ASK = """
    import sys
    import modal
    for name in sys.argv[1:]:
        function = modal.Function.from_name("shop", "ask_who", environment_name=name)
        try:
            print(name, *function.remote())
        except modal.exception.NotFoundError as error:
            print(name, error)
"""


def test_deployed_apps_of_one_name_live_in_several_environments(server: NamedServer) -> None:
    shop, ask = server.program(SHOP, "shop.py"), server.program(ASK, "ask.py")

    def asked(*names: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, ask, *names], env=server.environ, capture_output=True, text=True, timeout=120
        )
        return succeeded(done).splitlines()

    for name in ("red", "blue"):
        succeeded(server.modal("environment", "create", name))
        succeeded(server.modal("deploy", "-e", name, shop))
    assert asked("red", "blue", "red") == ["red red 1", "blue blue 1", "red red 2"]
    # A container that runs already, and one that starts now, both find what belongs to their environment.
    succeeded(server.modal("environment", "update", "red", "--set-name", "crimson"))
    first, second = asked("crimson", "red")
    assert first in ("crimson red 3", "crimson crimson 3")
    assert second.startswith("red There is no environment 'red'; there are: main, blue, crimson")
    succeeded(server.modal("environment", "create", "red"))
    [nothing] = asked("red")
    assert "There is no deployed app 'shop'" in nothing or "'shop'" in nothing
    listed_apps = json.loads(succeeded(server.modal("app", "list", "-e", "crimson", "--json")))
    assert len(listed_apps) == 1
    succeeded(server.modal("environment", "delete", "crimson", "--confirm"))
    assert asked("blue") == ["blue blue 2"]
    succeeded(server.intermodal("down", "--force"))
    succeeded(server.intermodal("up"))
    assert asked("blue") == ["blue blue 3"]
    succeeded(server.modal("environment", "create", "crimson"))
    assert json.loads(succeeded(server.modal("app", "list", "-e", "crimson", "--json"))) == []
    assert json.loads(succeeded(server.modal("dict", "list", "-e", "crimson", "--json"))) == []
    for name in ("red", "blue", "crimson"):
        succeeded(server.modal("environment", "delete", name, "--confirm"))


def test_environments_outlive_the_server(server: NamedServer) -> None:
    succeeded(server.modal("environment", "create", "lasting"))
    succeeded(server.modal("environment", "update", "lasting", "--set-name", "renamed"))
    succeeded(server.modal("secret", "create", "word", "WORD=lasting", "-e", "renamed"))
    succeeded(server.intermodal("down", "--force"))
    succeeded(server.intermodal("up"))
    app = server.program(WORD)
    assert succeeded(server.modal("run", "-e", "renamed", app)) == "lasting\n"
    succeeded(server.modal("environment", "delete", "renamed", "--confirm"))
    succeeded(server.intermodal("down", "--force"))
    succeeded(server.intermodal("up"))
    assert "renamed" not in listed(server)
