"""Volumes in containers that only read, that people execute commands in, and that are stopped."""

from __future__ import annotations

import glob
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from acceptance_harness import Background, Platform, Program, wait_until
from volume_commands import is_sound, sizes, text

from intermodal.node.mount_table import mounts_below


def test_a_read_only_mount(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import errno, os
        import modal
        app = modal.App("volumes")
        vol = modal.Volume.from_name("{volume}")

        def refusal(act, *args):
            try:
                act(*args)
            except OSError as error:
                return errno.errorcode[error.errno]

        @app.function(volumes={{"/data": vol}})
        def write(text):
            open("/data/a", "w").write(text)
            vol.commit()

        @app.function(volumes={{"/data": vol.read_only()}})
        def read(told, answers):
            told.put(os.listdir("/data"))
            answers.get()
            vol.reload()
            with open("/data/a") as file:
                told.put(file.read())
                answers.get()
                try:
                    vol.reload()
                except RuntimeError as error:
                    told.put(str(error))
            vol.reload()
            refusals = {{
                refusal(open, "/data/b", "w"), refusal(open, "/data/a", "a"), refusal(os.mkdir, "/data/c"),
                refusal(os.remove, "/data/a"), refusal(os.chmod, "/data/a", 0o777),
                refusal(os.rename, "/data/a", "/data/z"), refusal(os.truncate, "/data/a", 0),
            }}
            vol.commit()
            return refusals, open("/data/a").read()

        @app.cls(volumes={{"/data": vol.read_only()}})
        class Reader:
            @modal.method()
            def read(self):
                return refusal(open, "/data/b", "w"), open("/data/a").read()

        @app.local_entrypoint()
        def main():
            with modal.Queue.ephemeral() as told, modal.Queue.ephemeral() as answers:
                reading = read.spawn(told, answers)
                print("before", told.get())
                write.remote("one")
                answers.put("written")
                print("then", told.get())
                write.remote("two")
                answers.put("written")
                print("refused", told.get())
                print("at last", *reading.get())
            print("class", *Reader().read.remote())
            print("with options", *Reader.with_options(volumes={{"/data": vol}})().read.remote())
        """
    )
    out = platform.modal("run", path).succeeded().out
    assert "before []" in out
    assert "then one" in out
    assert "refused The volume cannot be reloaded while files of it are open: /data/a." in out
    assert "at last {'EROFS'} two" in out
    assert "class EROFS two" in out
    assert "with options None two" in out
    assert sorted(sizes(platform, volume)) == ["a", "b"]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("/etc/passwd", "/data", ["'/etc/passwd' is a file in the image"]),
        ("/run/a", "/var/run/a", ["'/run/a' and '/var/run/a' are the same directory"]),
    ],
)
def test_a_place_that_cannot_be_is_said_at_once(
    first: str, second: str, words: list[str], platform: Platform, program: Program, volume: str
) -> None:
    path = program(
        f"""
        import modal
        app = modal.App("places")
        vol = modal.Volume.from_name("{volume}")
        other = modal.Volume.from_name("{volume}-other", create_if_missing=True)

        @app.function(volumes={{"{first}": vol, "{second}": other}}, retries=3)
        def use():
            pass

        @app.local_entrypoint()
        def main():
            try:
                use.remote()
            except modal.exception.InvalidError as error:
                print("InvalidError:", error)
        """
    )
    out = platform.modal("run", path).succeeded().out
    [said] = [line for line in out.splitlines() if "InvalidError: " in line]
    assert all(word in said for word in words), out
    platform.modal("volume", "delete", "-y", f"{volume}-other").succeeded()


def test_commands_that_people_execute_in_a_container(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import os, time
        import modal
        app = modal.App("volumes")
        vol = modal.Volume.from_name("{volume}")

        @app.function(volumes={{"/data": vol}})
        def work():
            print("working in", os.environ["MODAL_TASK_ID"], flush=True)
            while not os.path.exists("/data/held"):
                time.sleep(0.05)
            try:
                vol.reload()
            except RuntimeError as error:
                print("refused:", error, flush=True)
            while os.path.exists("/data/held"):
                time.sleep(0.05)
            vol.reload()
            print("saw", open("/data/from-outside").read(), open("/data/from-exec").read(), flush=True)
            while not os.path.exists("/data/last"):
                time.sleep(0.05)

        @app.local_entrypoint()
        def main():
            work.remote()
        """
    )
    with platform.background("modal", "run", path) as running:
        running.wait_for("working in")
        container = running.out.split("working in ")[1].split()[0]

        def execute(script: str) -> list[object]:
            return ["container", "exec", container, "sh", "-c", script]

        platform.modal(*execute("echo exec > /data/from-exec")).succeeded()
        wait_until(lambda: "from-exec" in sizes(platform, volume), "the file to be committed by itself")
        outside = program("outside", "from-outside")
        platform.modal("volume", "put", volume, outside, "/from-outside").succeeded()
        # It is the container's version that is seen, and an open file of a command keeps that mounted.
        assert "from-outside" not in platform.modal(*execute("ls /data")).succeeded().out
        with platform.background("modal", *execute("exec 3>/data/held; echo holds; exec sleep 600")) as holding:
            holding.wait_for("holds")
            running.wait_for("refused: The volume cannot be reloaded while files of it are open: /data/held.")
            platform.modal(*execute("rm /data/held; pkill sleep || kill $(pidof sleep)")).succeeded()
        running.wait_for("saw outside exec")
        platform.modal(*execute("cd /data && echo last > last")).succeeded()
        running.end().succeeded()
    wait_until(lambda: not platform.containers(), "the container to end")
    assert sorted(sizes(platform, volume)) == ["from-exec", "from-outside", "last"]
    assert text(platform, volume, "last") == "last\n"


def by_command(platform: Platform, running: Background) -> None:
    [container] = platform.containers()
    platform.modal("container", "stop", container).succeeded()


def by_stopping_the_app(platform: Platform, running: Background) -> None:
    [app] = {row["app_id"] for row in json.loads(platform.modal("container", "list", "--json").out)}
    platform.modal("app", "stop", app).succeeded()


def by_interrupting(platform: Platform, running: Background) -> None:
    running.send(signal.SIGINT)


def by_killing(platform: Platform, running: Background) -> None:
    running.send(signal.SIGKILL)


@pytest.mark.parametrize("stop", [by_command, by_stopping_the_app, by_interrupting, by_killing])
def test_a_stop_during_a_commit(
    stop: Callable[[Platform, Background], None], platform: Platform, program: Program, volume: str
) -> None:
    size = 800 * 1024 * 1024
    path = program(
        f"""
        import os
        import modal
        app = modal.App("volumes")
        vol = modal.Volume.from_name("{volume}")

        @app.function(volumes={{"/data": vol}}, retries=0)
        def write():
            if os.path.exists("/data/whole"):
                return print("is there")
            os.mkdir("/data/whole")
            block = os.urandom(1024 * 1024)
            for name in ("a", "b"):
                with open(f"/data/whole/{{name}}", "wb") as file:
                    for _ in range({size} // 2 // len(block)):
                        file.write(block)
            print("commits", flush=True)
            vol.commit()
            print("done", flush=True)

        @app.local_entrypoint()
        def main():
            write.remote()
        """
    )
    with platform.background("modal", "run", path) as running:
        running.wait_for("commits")
        assert "done" not in running.out
        stop(platform, running)
        running.end()
    wait_until(lambda: not platform.containers(), "the container to end")
    assert sizes(platform, volume, "/whole").keys() == {"whole/a", "whole/b"}
    assert platform.modal("volume", "get", volume, "/whole", program.folder).succeeded()
    assert [(program.folder / "whole" / name).stat().st_size for name in ("a", "b")] == [size // 2, size // 2]
    assert is_sound(platform, volume)


def test_commits_and_reloads_that_are_given_up(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import asyncio, os, random
        import modal
        app = modal.App("volumes")
        vol = modal.Volume.from_name("{volume}")

        @app.function(volumes={{"/data": vol}})
        async def write():
            await vol.commit.aio()
            given_up = 0
            for number in range(150):
                with open(f"/data/{{number}}", "w") as file:
                    file.write(str(number) * 1000)
                asked = asyncio.create_task(vol.commit.aio() if number % 2 else vol.reload.aio())
                await asyncio.sleep(random.random() * 0.03)
                given_up += asked.cancel()
                for other in range(number + 1):
                    assert open(f"/data/{{other}}").read() == str(other) * 1000
                await asyncio.gather(asked, return_exceptions=True)
            print("given up", given_up > 20)
            await vol.commit.aio()
            return len(os.listdir("/data"))

        @app.local_entrypoint()
        def main():
            print("has", write.remote())
            print("committed", len(vol.listdir("/")))
        """
    )
    out = platform.modal("run", path).succeeded().out
    assert "given up True" in out
    assert "has 150" in out
    assert "committed 150" in out
    assert is_sound(platform, volume)


def test_requests_for_files_that_are_given_up(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import asyncio, io, random
        import modal
        vol = modal.Volume.from_name("{volume}")

        async def upload(number):
            async with vol.batch_upload(force=True) as batch:
                batch.put_file(io.BytesIO(b"x" * 3_000_000), "/file")
                batch.put_file(io.BytesIO(b"x" * 3_000_000), f"/sub/{{number}}")

        async def read(number):
            assert sum([len(data) async for data in vol.read_file("/file")]) == 3_000_000

        async def main():
            await upload(0)
            given_up = done = 0
            for number in range(300):
                work = random.choice([
                    upload(number), read(number), vol.listdir.aio("/", recursive=True),
                    vol.copy_files.aio(["/file"], f"/sub/copy-{{number}}"), vol.remove_file.aio("/sub/0"),
                ])
                task = asyncio.create_task(work)
                await asyncio.sleep(random.random() * 0.02)
                given_up += task.cancel()
                done += not isinstance((await asyncio.gather(task, return_exceptions=True))[0], BaseException)
            print("given up", given_up > 20, "done", done > 20)
            await read(0)

        asyncio.run(main())
        """
    )
    assert "given up True done True" in platform.python(path).succeeded().out

    def left() -> list[Path]:
        sessions = map(Path, glob.glob(f"{platform.data_dir}/volumes/*/open/*"))
        return [*sessions, *mounts_below(platform.layout.volumes)]

    wait_until(lambda: not left(), f"what they had mounted to be gone: {left()}")
    assert is_sound(platform, volume)
