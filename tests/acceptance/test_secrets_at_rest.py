"""The values of secrets are nowhere on the machine where they could be read, while a container and a build use them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from acceptance_harness import Platform, Program, wait_until


def where(platform: Platform, *marks: str) -> list[str]:
    """Every place on this machine that belongs to the server and holds one of the marks."""
    found = []
    # The layers that are shown again below the run directory are those of the data directory.
    command = ["grep", "-rlaF", "--devices=skip", "--exclude-dir=layers"]
    for mark in marks:
        command += ["-e", mark]
    for folder in (platform.data_dir, platform.layout.run):
        done = subprocess.run([*command, folder], capture_output=True, text=True, timeout=120)
        assert done.returncode in (0, 1) or "No such file" in done.stderr, done.stderr
        found += done.stdout.splitlines()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                arguments = (process / "cmdline").read_bytes()
                # This search, and the programs of other users of the machine, have the marks in no other place.
                if b"grep" not in arguments and any(mark.encode() in arguments for mark in marks):
                    found.append(f"arguments of {process.name}: {arguments!r}")
    status = platform.intermodal("status", "--json").succeeded().out
    found += [f"status: {status}" for mark in marks if mark in status]
    for container in platform.containers():
        state = subprocess.run(
            ["runc", "--root", platform.layout.runc_root, "state", container], capture_output=True, text=True
        ).stdout
        found += [f"state of {container}: {state}" for mark in marks if mark in state]
    return found


@contextlib.contextmanager
def meeting() -> Iterator[socket.socket]:
    """A port of this machine that a build step connects to; the step waits until its connection is closed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        listener.settimeout(300)
        yield listener


def test_a_running_container_has_the_values_and_no_file_does(platform: Platform, program: Program) -> None:
    named, anonymous = f"named-{secrets.token_hex(16)}", f"anonymous-{secrets.token_hex(16)}"
    platform.modal("secret", "create", "at-rest", f"NAMED={named}", "--force").succeeded()
    path = program(
        """
        import hashlib, os, subprocess, sys, time
        import modal
        app = modal.App("at-rest")

        def digest(text):
            return hashlib.sha256(text.encode()).hexdigest()

        @app.function(
            secrets=[modal.Secret.from_name("at-rest"), modal.Secret.from_local_environ(["ANONYMOUS"])], serialized=True
        )
        def hold():
            here = digest(os.environ["NAMED"]), digest(os.environ["ANONYMOUS"])
            show = "import os; print(os.environ['NAMED'], os.environ['ANONYMOUS'])"
            child = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True).stdout.split()
            with open("/proc/1/environ") as first, open("/proc/self/environ") as own:
                started_with = first.read() + own.read()
            assert "MODAL_TASK_ID=" in started_with
            assert os.environ["NAMED"] not in started_with and os.environ["ANONYMOUS"] not in started_with
            print("holding", here == tuple(map(digest, child)), *here, os.environ["MODAL_TASK_ID"], flush=True)
            time.sleep(300)
        """
    )
    with platform.background("modal", "run", path, ANONYMOUS=anonymous) as run:
        run.wait_for("holding", 120)
        wait_until(lambda: run.out.count("ta-") > 0, "the whole line")
        shown = re.search(r"holding (\w+) (\w+) (\w+) (ta-\w+)", run.out)
        assert shown is not None
        assert shown[1] == "True"
        assert shown[2] == hashlib.sha256(named.encode()).hexdigest()
        assert shown[3] == hashlib.sha256(anonymous.encode()).hexdigest()
        assert where(platform, named, anonymous) == []
        # A command in the container has them too, and while it runs no file has.
        command = "import os, time; print(os.environ['NAMED'][:5], flush=True); time.sleep(300)"
        with platform.background("modal", "container", "exec", shown[4], "python", "-c", command) as inside:
            inside.wait_for("named")
            assert where(platform, named, anonymous) == []
            inside.process.kill()
        assert named not in run.err
        run.send(signal.SIGINT)
        run.end()
    assert where(platform, named, anonymous) == []


def test_a_build_step_has_the_values_and_neither_a_file_nor_the_image_does(
    platform: Platform, program: Program
) -> None:
    value = f"build-{secrets.token_hex(16)}"
    platform.modal("secret", "create", "in-build", f"VALUE={value}", "--force").succeeded()
    with meeting() as listener:
        port = listener.getsockname()[1]
        path = program(
            f"""
            import modal
            step = (
                'python -c "import os, socket; n = len(os.environ[\\'VALUE\\']); '
                's = socket.create_connection((\\'127.0.0.1\\', {port})); s.sendall(str(n).encode()); s.recv(1)"'
            )
            image = modal.Image.debian_slim().run_commands(step, secrets=[modal.Secret.from_name("in-build")])
            app = modal.App("in-build", image=image)

            @app.function()
            def f():
                import os
                return os.environ.get("VALUE")
            """
        )
        with platform.background("modal", "run", path) as run:
            step, _ = listener.accept()
            with step:
                step.settimeout(60)
                assert int(step.recv(16)) == len(value)
                assert where(platform, value) == []
            ended = run.end(120)
        assert ended.code == 0, str(ended)
        assert value not in ended.out + ended.err
    assert where(platform, value) == []
    found = json.loads(platform.modal("secret", "list", "--json").succeeded().out)
    assert [one["last_used_at"] != "-" for one in found if one["name"] == "in-build"] == [True]


def test_the_search_finds_what_is_there(platform: Platform) -> None:
    mark = f"found-{secrets.token_hex(16)}"
    places = [platform.data_dir / "run" / "mark", platform.layout.run / "mark"]
    for place in places:
        place.write_bytes(b"\0" + mark.encode())
    try:
        assert where(platform, mark) == [str(place) for place in places]
        with subprocess.Popen(["sh", "-c", f"read line; : {mark}"], stdin=subprocess.PIPE) as shell:
            assert any(found.startswith(f"arguments of {shell.pid}:") for found in where(platform, mark))
            shell.communicate(b"\n")
    finally:
        for place in places:
            place.unlink()


def test_the_key_is_the_servers_users_alone(platform: Platform) -> None:
    platform.modal("secret", "create", "at-rest", "A=1", "--force").succeeded()
    key = platform.data_dir / "secret.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.stat().st_uid == os.geteuid()
