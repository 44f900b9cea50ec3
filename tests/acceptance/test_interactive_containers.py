"""Code in real containers that asks its user, at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from acceptance_harness import BIN, Platform, Program

from pty_session import PtySession, terminal

pytestmark = pytest.mark.e2e

APP = """
    import os, subprocess, sys
    import modal
    app = modal.App("asks")
    image = modal.Image.debian_slim().pip_install("ipython")

    @app.function()
    def ask():
        modal.interact()
        import getpass
        print("terminal", os.ttyname(0), os.get_terminal_size())
        subprocess.run(["sh", "-c", "stty -a | head -1"])
        word = getpass.getpass("word? ")
        print("known" if word == "swordfish" else "unknown")
        return input("number? ")

    @app.function()
    def shell():
        modal.interact()
        return subprocess.run(["bash", "--norc", "-i"]).returncode

    @app.function(image=image)
    def embed():
        hidden = 40
        modal.interact()
        import IPython
        IPython.embed(colors="NoColor", simple_prompt=False)
        return "embedded"

    @app.function()
    def unprivileged():
        os.setgid(1000)
        os.setuid(1000)
        modal.interact()
        return input("as nobody? ")
"""


@pytest.fixture
def asking(platform: Platform, program: Program) -> Iterator[object]:
    path = program(APP)

    @contextmanager
    def run(function: str) -> Iterator[PtySession]:
        command = [BIN / "modal", "run", "-i", f"{Path(path)}::{function}"]
        with terminal(command, platform.env, rows=40, columns=100) as session:
            yield session

    return run


def test_a_function_asks(asking) -> None:
    with asking("ask") as session:
        session.wait_for("word? ", 120)
        assert "terminal /dev/pts/" in session.screen
        assert "columns=100, lines=40" in session.screen
        assert "rows 40; columns 100" in session.screen
        session.type("swordfish\r")
        session.wait_for("known")
        assert "swordfish" not in session.screen
        session.wait_for("number? ")
        session.type("17\r")
        assert session.end() == 0
        assert "'17'" in session.screen or session.screen.rstrip().endswith("17")


def test_a_shell_has_job_control_and_its_own_ctrl_c(asking) -> None:
    with asking("shell") as session:
        session.wait_for("# ", 120)
        session.type("sleep 1000\r")
        session.wait_for("sleep 1000")
        session.type("\x1a")
        session.wait_for("Stopped")
        session.type("fg\r")
        session.wait_for("sleep 1000", count=3)
        session.type("\x03")
        session.type("exit 5\r")
        assert session.end() == 0
        assert "no job control" not in session.screen
        assert session.screen.rstrip().endswith("5")


def test_ipython_can_be_embedded(asking) -> None:
    with asking("embed") as session:
        session.wait_for("In [1]:", 180)
        session.type("hidden + 2\r")
        session.wait_for("42")
        session.wait_for("In [2]:")
        session.type("exit\r")
        assert session.end() == 0
        assert "embedded" in session.screen


def test_code_that_dropped_its_rights_asks_too(asking) -> None:
    with asking("unprivileged") as session:
        session.wait_for("as nobody? ", 120)
        session.type("yes\r")
        assert session.end() == 0
