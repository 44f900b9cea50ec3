"""How processes that use the SDK end: forked children, daemon threads, and generators that nobody finished."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from real_server import RealServer

FORK = """
import os, signal, sys, time
import modal

def made_app():
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return modal.App(image=modal.Image.debian_slim(python_version=version))

def in_child(leave):
    child = os.fork()
    if not child:
        leave()
        return True
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            print("child", os.waitstatus_to_exitcode(status), flush=True)
            return False
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("child hangs", flush=True)
    return False
"""


def run_program(folder: Path, text: str, *, status: int = 0) -> str:
    """What a program prints; it may complain of nothing."""
    program = folder / "program.py"
    program.write_text(FORK + textwrap.dedent(text))
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=100)
    assert (done.stderr, done.returncode) == ("", status), done.stdout
    return done.stdout


@pytest.mark.parametrize("leave", ["sys.exit", "lambda: None", "lambda: print(q.get_many(9), flush=True)"])
def test_a_forked_child_leaves_what_the_parent_made(leave: str, real_server: RealServer, tmp_path: Path) -> None:
    text = f"""
        with modal.Queue.ephemeral() as q, modal.Dict.ephemeral({{"a": 1}}) as d:
            q.put_many([1, 2])
            is_child = in_child({leave})
            if not is_child:
                print(q.len(), d["a"])
        if is_child:
            sys.exit()
        try:
            q.len()
        except modal.exception.NotFoundError:
            print("gone")
    """
    took = "print" in leave
    expected = ["[1, 2]", "child 0", "0 1", "gone"] if took else ["child 0", "2 1", "gone"]
    assert run_program(tmp_path, text).splitlines() == expected


def test_a_forked_child_leaves_an_async_context(real_server: RealServer, tmp_path: Path) -> None:
    text = """
        import asyncio

        async def main():
            async with modal.Queue.ephemeral() as q:
                await q.put.aio(1)
                is_child = in_child(lambda: None)
                if not is_child:
                    print(await q.len.aio())
            if is_child:
                os._exit(0)  # a fork cannot go on with asyncio

        asyncio.run(main())
    """
    assert run_program(tmp_path, text).splitlines() == ["child 0", "1"]


@pytest.mark.parametrize("leave", ["sys.exit", "lambda: None", "lambda: print(f.remote(2), flush=True)"])
def test_a_forked_child_leaves_a_running_app(leave: str, real_server: RealServer, tmp_path: Path) -> None:
    text = f"""
        app = made_app()

        @app.function(serialized=True)
        def f(x):
            return x

        with app.run():
            f.remote(0)
            is_child = in_child({leave})
            if not is_child:
                print(f.remote(1), flush=True)
    """
    expected = ["2", "child 0", "1"] if "print" in leave else ["child 0", "1"]
    assert run_program(tmp_path, text).splitlines() == expected


def test_a_forked_child_does_not_go_on_with_what_the_parent_iterates_over(
    real_server: RealServer, tmp_path: Path
) -> None:
    text = """
        def go_on():
            try:
                next(keys)
            except modal.exception.ClientClosed as error:
                print(error, flush=True)

        with modal.Dict.ephemeral({n: n for n in range(2000)}) as d:
            keys = d.keys()
            next(keys)
            in_child(go_on) and sys.exit()
            print(len(list(keys)))
    """
    message = "This process is a fork of the one that began this; begin it anew here."
    assert run_program(tmp_path, text).splitlines() == [message, "child 0", "1999"]


@pytest.mark.parametrize(
    "use",
    [
        "keys = d.keys(); next(keys)",
        "entries = iter(d.items()); next(entries)",
        "items = q.iterate(item_poll_timeout=100); next(items)",
        "outputs = f.map(range(100)); next(outputs)",
        "values = g.remote_gen(); next(values)",
    ],
)
def test_what_is_iterated_over_at_the_end_ends_in_silence(use: str, real_server: RealServer, tmp_path: Path) -> None:
    text = f"""
        app = made_app()

        @app.function(serialized=True)
        def f(x):
            return x

        @app.function(serialized=True)
        def g():
            while True:
                yield 1

        d = modal.Dict.lookup("unfinished", {{n: n for n in range(2000)}}, create_if_missing=True)
        q = modal.Queue.lookup("unfinished", create_if_missing=True)
        q.put_many([1, 2])
        with app.run():
            {use}
        print("end")
    """
    assert run_program(tmp_path, text) == "end\n"


def test_daemon_threads_end_in_silence(real_server: RealServer, tmp_path: Path) -> None:
    text = """
        import asyncio, threading

        q = modal.Queue.lookup("for-daemons", create_if_missing=True)
        d = modal.Dict.lookup("for-daemons", {"a": 1}, create_if_missing=True)

        def asks():
            while True:
                d["a"]

        async def waits():
            await q.get.aio()

        def lists():
            while True:
                list(d.keys())

        def follows():
            list(q.iterate(item_poll_timeout=99))

        for target in (q.get, asks, lambda: asyncio.run(waits()), lists, follows):
            threading.Thread(target=target, daemon=True).start()
        time.sleep(0.3)
        print("end")
    """
    for _ in range(3):
        assert run_program(tmp_path, text) == "end\n"
