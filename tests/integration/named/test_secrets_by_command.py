"""Named secrets as their users see them: through the command line and the SDK, against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from named_server import NamedServer, failed, succeeded

SHOW = """
    import os
    import modal
    app = modal.App("show")
    secret = modal.Secret.from_name("shown", required_keys=["A"])

    @app.function(secrets=[secret])
    def show():
        return sorted((key, value) for key, value in os.environ.items() if len(key) == 1)

    @app.local_entrypoint()
    def main():
        print(show.remote())
"""


def secret_list(server: NamedServer, *args: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(succeeded(server.modal("secret", "list", "--json", *args)))
    return found


def test_a_secret_is_made_used_and_listed_without_its_values(server: NamedServer) -> None:
    said = succeeded(server.modal("secret", "create", "shown", "A=one two", "B=x=y", "C="))
    assert 'modal.Secret.from_name("shown")' in said
    assert "one two" not in said
    assert [one["last_used_at"] for one in secret_list(server) if one["name"] == "shown"] == ["-"]
    app = server.program(SHOW)
    assert succeeded(server.modal("run", app)) == "[('A', 'one two'), ('B', 'x=y'), ('C', '')]\n"
    [shown] = [one for one in secret_list(server) if one["name"] == "shown"]
    assert set(shown) == {"name", "created_at", "last_used_at"}
    assert shown["last_used_at"] >= shown["created_at"] > "2020"
    assert "one two" not in succeeded(server.modal("secret", "list"))


def test_new_values_need_force_and_reach_new_containers(server: NamedServer) -> None:
    succeeded(server.modal("secret", "create", "shown", "A=1", "B=2", "--force"))
    app = server.program(SHOW)
    assert succeeded(server.modal("run", app)) == "[('A', '1'), ('B', '2')]\n"
    failed(server.modal("secret", "create", "shown", "A=9"), "There is a secret 'shown'", "'main' already", "--force")
    assert succeeded(server.modal("run", app)) == "[('A', '1'), ('B', '2')]\n"
    succeeded(server.modal("secret", "create", "shown", "A=9", "--force"))
    assert succeeded(server.modal("run", app)) == "[('A', '9')]\n"


def test_a_running_app_gives_new_containers_the_new_values(server: NamedServer) -> None:
    succeeded(server.modal("secret", "create", "changing", "A=old"))
    app = server.program(
        """
        import os, subprocess, sys
        import modal
        app = modal.App("changing")

        @app.function(secrets=[modal.Secret.from_name("changing")], max_inputs=1)
        def value():
            return os.environ["A"]

        @app.local_entrypoint()
        def main():
            before = value.remote()
            change = [sys.executable, "-m", "modal.cli.main", "secret", "create", "changing", "A=new", "--force"]
            subprocess.run(change, check=True, stdout=subprocess.DEVNULL)
            print(before, value.remote())
        """
    )
    assert succeeded(server.modal("run", app)) == "old new\n"


def test_what_is_missing_is_named_and_values_never(server: NamedServer) -> None:
    app = server.program(
        """
        import modal
        app = modal.App("missing")

        @app.function(secrets=[modal.Secret.from_name("partly", required_keys=["HAVE", "LACK", "WANT"])])
        def f():
            return 1
        """
    )
    missing = server.modal("run", app)
    failed(missing, "There is no secret 'partly' in the environment 'main'", "modal secret create partly KEY=VALUE")
    succeeded(server.modal("secret", "create", "partly", "HAVE=swordfish", "OTHER=swordfish"))
    lacking = server.modal("run", app)
    failed(lacking, "The secret 'partly' in the environment 'main' lacks LACK, WANT.", "--force")
    assert "swordfish" not in lacking.stderr
    assert "OTHER" not in lacking.stderr
    succeeded(server.modal("environment", "create", "elsewhere"))
    failed(server.modal("run", "-e", "elsewhere", app), "modal secret create partly KEY=VALUE --env elsewhere")
    failed(server.modal("secret", "list", "-e", "nowhere"), "There is no environment 'nowhere'; there are: main")
    failed(server.modal("secret", "create", "x", "A=1", "-e", "nowhere"), "There is no environment 'nowhere'")


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (["bad name", "A=1"], "The name of a secret must have 1 to 64 letters", 1),
        (["bad", "hunter2"], "Argument 1 after the secret's name is not of the form KEY=VALUE", 2),
        (["bad", "=hunter2"], "not of the form KEY=VALUE", 2),
        (["bad", "A=1", "A=hunter2"], "The key A is given twice", 2),
        (["bad", "A-B=hunter2"], "'A-B' is no name of an environment variable", 1),
        (["bad", *(f"A{n}={'hunter2' * 10_000}" for n in range(4))], "A secret holds at most 256 KiB", 1),
        (["bad"], "Missing argument", 2),
    ],
)
def test_what_cannot_be_a_secret_is_refused(
    server: NamedServer, arguments: list[str], sentence: str, code: int
) -> None:
    done = server.modal("secret", "create", *arguments)
    failed(done, sentence, code=code)
    assert "hunter2" not in done.stderr
    assert not [one for one in secret_list(server) if one["name"].startswith("bad")]


def test_a_secret_can_be_named_from_another_environment(server: NamedServer) -> None:
    succeeded(server.modal("environment", "create", "vault"))
    succeeded(server.modal("secret", "create", "far", "A=vault", "--env", "vault"))
    app = server.program(
        """
        import os
        import modal
        app = modal.App("far")

        @app.function(secrets=[modal.Secret.from_name("far", environment_name="vault")])
        def f():
            return os.environ["A"]
        """
    )
    assert succeeded(server.modal("run", app)) == "vault\n"
    hydrate = server.program(
        """
        import modal
        secret = modal.Secret.from_name("far", environment_name="vault")
        print(secret.hydrate().object_id[:3])
        try:
            modal.Secret.from_name("far").hydrate()
        except modal.exception.NotFoundError as error:
            print(error)
        """,
        "hydrate.py",
    )
    done = subprocess.run([sys.executable, hydrate], env=server.environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("sr-\nThere is no secret 'far' in the environment 'main'."), done.stderr


def test_code_in_a_container_sees_that_a_secret_exists_and_no_values(server: NamedServer) -> None:
    succeeded(server.modal("secret", "create", "inner", "A=swordfish", "--force"))
    succeeded(server.modal("environment", "create", "other"))
    succeeded(server.modal("secret", "create", "outer", "A=swordfish", "--env", "other"))
    app = server.program(
        """
        import modal
        app = modal.App("inside")

        @app.function()
        def look():
            import asyncio
            from modal._objects.client import default_client
            from modal._sync import run
            from modal._wire.messages import secret as messages
            from modal._wire.messages.environment import ENVIRONMENT_LIST
            from modal._wire.messages.common import Empty
            said = [modal.Secret.from_name("inner", required_keys=["A"]).hydrate().object_id[:3]]

            async def ask(method, request):
                reply, body = await (await default_client()._rpc()).unary(method, request)
                return reply

            def refused(work):
                try:
                    return repr(work())
                except modal.exception.Error as error:
                    return type(error).__name__

            said.append(refused(lambda: modal.Secret.from_name("none").hydrate()))
            said.append(refused(lambda: modal.Secret.from_name("inner", required_keys=["B"]).hydrate()))
            said.append(refused(lambda: modal.Secret.from_name("outer", environment_name="other").hydrate()))
            said.append(refused(lambda: run(ask(messages.SECRET_LIST, messages.SecretEnvironment("")))))
            put = messages.SecretPut("inner", "", {"A": "mine"}, True)
            said.append(refused(lambda: run(ask(messages.SECRET_PUT, put))))
            said.append(refused(lambda: run(ask(messages.SECRET_ROTATE_KEY, Empty()))))
            said.append(refused(lambda: run(ask(ENVIRONMENT_LIST, Empty()))))
            return " ".join(said)
        """
    )
    said = succeeded(server.modal("run", app))
    assert said == "sr- NotFoundError InvalidError AuthError AuthError AuthError AuthError AuthError\n"


def test_variables_that_matter_as_a_process_starts_are_there_then(server: NamedServer) -> None:
    succeeded(server.modal("secret", "create", "early", "PYTHONHASHSEED=7", "TZ=Asia/Tokyo", "MODAL_TASK_ID=mine"))
    app = server.program(
        """
        import os, time
        import modal
        app = modal.App("early")

        @app.function(secrets=[modal.Secret.from_name("early")])
        def f():
            return hash("x"), os.environ["PYTHONHASHSEED"], time.tzname[0], os.environ["MODAL_TASK_ID"][:3]
        """
    )
    first = succeeded(server.modal("run", app))
    assert first.endswith(", '7', 'JST', 'ta-')\n")
    assert succeeded(server.modal("run", app)) == first


CALL = """
    import sys
    import modal
    try:
        print(modal.Function.from_name("uses", "use", environment_name=sys.argv[1]).remote())
    except modal.exception.Error as error:
        print(type(error).__name__, error)
"""
USES = """
    import os
    import modal
    app = modal.App("uses")
    vaulted = modal.Secret.from_name("far", environment_name="safe")
    own = modal.Secret.from_name("own", required_keys=["OWN"])

    @app.function(secrets=[vaulted, own])
    def use():
        return os.environ["A"], os.environ["OWN"]

    @app.cls()
    class Model:
        @modal.method()
        def own(self):
            return os.environ["OWN"]

    @app.local_entrypoint()
    def main():
        print(Model.with_options(secrets=[own])().own.remote())
"""


def test_deployed_functions_follow_their_secrets(server: NamedServer) -> None:
    uses, call = server.program(USES, "uses.py"), server.program(CALL, "call.py")

    def called() -> str:
        done = subprocess.run(
            [sys.executable, call, "staging"], env=server.environ, capture_output=True, text=True, timeout=120
        )
        return succeeded(done)

    for name in ("safe", "staging"):
        succeeded(server.modal("environment", "create", name))
    succeeded(server.modal("secret", "create", "far", "A=1", "--env", "safe"))
    failed(server.modal("deploy", "-e", "staging", uses), "no secret 'own' in the environment 'staging'")
    succeeded(server.modal("secret", "create", "own", "OWN=1", "--env", "staging"))
    succeeded(server.modal("deploy", "-e", "staging", uses))
    assert called() == "('1', '1')\n"
    assert succeeded(server.modal("run", "-e", "staging", uses)) == "1\n"
    succeeded(server.modal("environment", "update", "safe", "--set-name", "safer"))
    succeeded(server.modal("secret", "create", "far", "A=2", "--env", "safer", "--force"))
    succeeded(server.intermodal("down"))
    succeeded(server.intermodal("up"))
    assert called() == "('2', '1')\n"
    succeeded(server.modal("environment", "delete", "safer", "--confirm"))
    for _ in range(2):
        succeeded(server.intermodal("down"))
        succeeded(server.intermodal("up"))
        said = called()
        assert said.startswith("NotFoundError")
        assert "There is no secret" in said
    succeeded(server.modal("environment", "delete", "staging", "--confirm"))


def test_keys_are_rotated_with_the_server_and_without_it(server: NamedServer) -> None:
    succeeded(server.modal("secret", "create", "shown", "A=rotated", "--force"))
    app = server.program(SHOW)
    key = server.data_dir / "secret.key"
    seen = {key.read_bytes()}
    count = len(secret_list(server)) + 1
    said = succeeded(server.intermodal("secrets", "rotate-key"))
    assert "are encrypted with a new key" in said
    assert int(said.split()[0]) >= count - 1
    seen.add(key.read_bytes())
    assert succeeded(server.modal("run", app)) == "[('A', 'rotated')]\n"
    succeeded(server.intermodal("down"))
    succeeded(server.intermodal("secrets", "rotate-key"))
    seen.add(key.read_bytes())
    assert len(seen) == 3
    assert all(len(keys.split()) == 1 for keys in seen)
    assert key.stat().st_mode & 0o777 == 0o600
    succeeded(server.intermodal("up"))
    assert succeeded(server.modal("run", app)) == "[('A', 'rotated')]\n"


def test_a_lost_key_stops_neither_the_server_nor_other_secrets(server: NamedServer) -> None:
    succeeded(server.modal("secret", "create", "shown", "A=lost", "--force"))
    app = server.program(SHOW)
    succeeded(server.intermodal("down"))
    key = server.data_dir / "secret.key"
    kept = key.read_bytes()
    key.unlink()
    succeeded(server.intermodal("up"))
    failed(server.modal("run", app), "The secret 'shown' cannot be decrypted", "Restore that file")
    failed(server.intermodal("secrets", "rotate-key"), "The key was not changed", "would be lost")
    succeeded(server.modal("secret", "create", "fresh", "A=1"))
    succeeded(server.intermodal("down"))
    # The lost key comes back beside the one that was made meanwhile.
    key.write_bytes(key.read_bytes() + kept)
    succeeded(server.intermodal("up"))
    assert succeeded(server.modal("run", app)) == "[('A', 'lost')]\n"
    succeeded(server.intermodal("secrets", "rotate-key"))
    assert len(key.read_bytes().split()) == 1
    assert succeeded(server.modal("run", app)) == "[('A', 'lost')]\n"


def test_rotating_needs_secrets(tmp_path: Path) -> None:
    empty = NamedServer(tmp_path)
    failed(empty.intermodal("secrets", "rotate-key"), "There are no secrets in", "no server has run on it")
    assert not empty.data_dir.exists()


def test_no_log_shows_a_value_however_much_is_logged(tmp_path: Path) -> None:
    talkative = NamedServer(tmp_path, log_level="DEBUG")
    succeeded(talkative.intermodal("up"))
    try:
        mark = "swordfish-8d1f"
        made = talkative.modal("secret", "create", "shown", f"A={mark}", MODAL_LOGLEVEL="DEBUG")
        succeeded(made)
        app = talkative.program(
            """
            import os
            import modal
            app = modal.App("talkative")
            named, anonymous = modal.Secret.from_name("shown"), modal.Secret.from_local_environ(["MARK"])
            both = [named, anonymous]

            @app.function(secrets=both, serialized=True)
            def length():
                return len(os.environ["A"]), len(os.environ["MARK"]), len(both)

            @app.function(secrets=both)
            def fail():
                raise ValueError(f"{named} {anonymous}")
            """
        )
        ran = talkative.modal("run", f"{app}::length", MODAL_LOGLEVEL="DEBUG", MARK=mark)
        assert succeeded(ran) == f"({len(mark)}, {len(mark)}, 2)\n"
        broken = talkative.modal("run", f"{app}::fail", MODAL_LOGLEVEL="DEBUG", MODAL_TRACEBACK="1", MARK=mark)
        assert broken.returncode == 1
        assert "Secret.from_name('shown')" in broken.stderr
        assert "DEBUG" in ran.stderr
        log = (talkative.data_dir / "server.log").read_text()
        for text in (made.stdout, made.stderr, ran.stderr, broken.stdout, broken.stderr, log):
            assert mark not in text
        found = subprocess.run(["grep", "-rlaF", mark, talkative.data_dir], capture_output=True, text=True).stdout
        assert found == ""
    finally:
        succeeded(talkative.intermodal("down"))
