"""Volumes and network file systems in real containers, through the commands of a user."""

from __future__ import annotations

import glob
import json
import re
import signal
from pathlib import Path

import pytest
from acceptance_harness import Platform, Program, wait_until
from volume_commands import files, is_sound, text


def test_commit_reload_and_open_files(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import os
        import modal
        app = modal.App("volumes")
        vol = modal.Volume.from_name("{volume}")

        @app.function(volumes={{"/data": vol}})
        def write(text):
            os.makedirs("/data/sub/deep", exist_ok=True)
            with open("/data/hello.txt", "w") as file:
                file.write(text)
            with open("/data/sub/deep/script", "w") as file:
                file.write("#!/bin/sh")
            os.chmod("/data/sub/deep/script", 0o751)
            os.chown("/data/sub/deep/script", 1000, 1001)
            if not os.path.lexists("/data/link"):
                os.symlink("/etc/passwd", "/data/link")
            vol.commit()
            vol.commit()

        @app.function(volumes={{"/other": vol}})
        def read():
            before = sorted(os.listdir("/other"))
            with open("/other/mine", "w") as file:
                try:
                    vol.reload()
                except RuntimeError as error:
                    print("refused:", error)
            os.chdir("/other")
            try:
                vol.reload()
            except RuntimeError as error:
                print("refused:", error)
            os.chdir("/")
            vol.reload()
            status = os.stat("/other/sub/deep/script")
            print("status", oct(status.st_mode & 0o777), status.st_uid, status.st_gid)
            return before, sorted(os.listdir("/other")), open("/other/hello.txt").read()

        @app.local_entrypoint()
        def main():
            write.remote("one")
            print("read", read.remote())
            write.remote("two")
            print("read", read.remote())
        """
    )
    out = platform.modal("run", path).succeeded().out
    assert "read (['hello.txt', 'link', 'sub'], ['hello.txt', 'link', 'mine', 'sub'], 'one')" in out
    assert "['hello.txt', 'link', 'mine', 'sub'], 'two')" in out
    assert "status 0o751 1000 1001" in out
    assert "refused: The volume cannot be reloaded while files of it are open: /other/mine." in out
    assert "refused: The volume cannot be reloaded while files of it are open: /other (the working directory" in out
    assert files(platform, volume) == ["hello.txt", "link", "mine", "sub"]
    assert text(platform, volume, "hello.txt") == "two"
    # A link leads nowhere but into the volume, which has no /etc/passwd.
    platform.modal("volume", "get", volume, "link", "-").failed_with_one_sentence("/etc/passwd', which leads nowhere")


def test_changes_are_committed_by_themselves_and_at_the_end(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import time
        import modal
        app = modal.App("volumes")
        vol = modal.Volume.from_name("{volume}")

        @app.function(volumes={{"/data": vol}})
        def work():
            open("/data/closed", "w").write("closed")
            held = open("/data/held", "w")
            held.write("held")
            held.flush()
            while not any(entry.path == "seen" for entry in vol.listdir("/")):
                time.sleep(0.1)
            open("/data/last", "w").write("last")
            held.close()
            print("ends")

        @app.local_entrypoint()
        def main():
            call = work.spawn()
            while {{"closed", "held"}} - {{entry.path for entry in vol.listdir("/")}}:
                time.sleep(0.1)
            with vol.batch_upload() as batch:
                batch.put_file("{__file__}", "/seen")
            call.get()
        """
    )
    platform.modal("run", path).succeeded()
    wait_until(lambda: not platform.containers(), "the container to end")
    assert files(platform, volume) == ["closed", "held", "last", "seen"]
    assert text(platform, volume, "held") == "held"


def test_what_a_killed_container_wrote_is_there(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import os, signal
        import modal
        app = modal.App("volumes")
        vol = modal.Volume.from_name("{volume}")

        @app.function(volumes={{"/data": vol}})
        def die():
            open("/data/before", "w").write("x" * 1000)
            os.kill(os.getpid(), signal.SIGKILL)

        @app.local_entrypoint()
        def main():
            try:
                die.remote()
            except Exception as error:
                print("died", type(error).__name__)
        """
    )
    assert "died" in platform.modal("run", path).succeeded().out
    wait_until(lambda: not platform.containers(), "the container to be gone")
    assert len(text(platform, volume, "before")) == 1000
    assert is_sound(platform, volume)


def test_a_killed_server_leaves_the_old_version_or_the_new(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import modal
        app = modal.App("volumes")
        vol = modal.Volume.from_name("{volume}")

        @app.function(volumes={{"/data": vol}}, timeout=60)
        def write():
            for number in range(100_000):
                for name in ("a", "b"):
                    with open(f"/data/{{name}}.new", "w") as file:
                        file.write(str(number) * 1000)
                    import os
                    os.rename(f"/data/{{name}}.new", f"/data/{{name}}")
                vol.commit()
                print("committed", number, flush=True)

        @app.function(volumes={{"/data": vol}})
        def read():
            one, other = open("/data/a").read(), open("/data/b").read()
            assert len(one) % 1000 == len(other) % 1000 == 0
            print("read", one[: len(one) // 1000], other[: len(other) // 1000])
        """
    )
    for moment in range(3):
        with platform.background("modal", "run", f"{path}::write") as running:
            running.wait_for(f"committed {2 + 3 * moment}")
            server = platform.server()
            assert server is not None
            server.send_signal(signal.SIGKILL)
            running.send(signal.SIGKILL)
            running.end()
        platform.intermodal("up").succeeded()
        wait_until(lambda: not platform.containers(), "what was left to be gone")
        assert is_sound(platform, volume)
        # What a container has mounted is one version, even while the call that was interrupted runs again for a moment.
        out = platform.modal("run", f"{path}::read").succeeded().out
        [(one, other)] = re.findall(r"read (\d+) (\d+)", out)
        assert int(one) - int(other) in (0, 1)


def test_a_killed_server_leaves_nothing_of_an_upload(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import io, threading
        import modal
        vol = modal.Volume.from_name("{volume}")
        shared = modal.NetworkFileSystem.from_name("{volume}", create_if_missing=True)

        class Halfway(io.RawIOBase):
            parts = 3

            def read(self, size=-1):
                if not self.parts:
                    print("halfway", flush=True)
                    threading.Event().wait()
                self.parts -= 1
                return b"x" * 2_000_000

        def to_volume():
            with vol.batch_upload() as batch:
                for number in range(100):
                    batch.put_file(io.BytesIO(b"x"), f"/x/{{number}}")
                batch.put_file(Halfway(), "/x/large")

        with vol.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"x"), "/before")
        threading.Thread(target=to_volume).start()
        threading.Thread(target=lambda: shared.write_file("/large", Halfway())).start()
        threading.Event().wait()
        """
    )

    def begun() -> bool:
        places = ["volumes/*/open/*/upper/x/.intermodal-*", "shared/.drafts-*/*"]
        return all(any(file.stat().st_size for file in platform.data_dir.glob(place)) for place in places)

    with platform.background("python", path) as running:
        wait_until(lambda: running.out.count("halfway") == 2, "the uploads to be halfway")
        wait_until(begun, "the server to have half of them")
        server = platform.server()
        assert server is not None
        server.send_signal(signal.SIGKILL)
        running.send(signal.SIGKILL)
        running.end()
    platform.intermodal("up").succeeded()
    assert files(platform, volume) == ["before"]
    assert is_sound(platform, volume)
    assert "large" not in platform.modal("nfs", "ls", volume, "/").succeeded().out
    wait_until(lambda: not list(platform.data_dir.glob("shared/.drafts-*")), "half of a file to be deleted")
    platform.modal("nfs", "delete", "-y", volume).succeeded()


def test_concurrent_containers_and_the_last_writer(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import time
        import modal
        app = modal.App("volumes")
        vol = modal.Volume.from_name("{volume}")

        @app.function(volumes={{"/data": vol}}, allow_concurrent_inputs=1)
        def write(name):
            open("/data/shared", "w").write(name)
            open(f"/data/{{name}}", "w").write(name)
            vol.commit()
            return name

        @app.cls(volumes={{"/data": vol}})
        class Reader:
            @modal.enter()
            def load(self):
                self.at_start = sorted(entry.path for entry in vol.listdir("/"))

            @modal.method()
            def read(self):
                vol.reload()
                return {{entry.path: open("/data/" + entry.path).read() for entry in vol.listdir("/")}}

        @app.local_entrypoint()
        def main():
            list(write.map([f"w{{n}}" for n in range(6)]))
            found = Reader().read.remote()
            print(len(found), found["shared"] in found, all(found[f"w{{n}}"] == f"w{{n}}" for n in range(6)))
        """
    )
    assert "7 True True" in platform.modal("run", path).succeeded().out


def test_a_deleted_volume(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import modal
        app = modal.App("volumes")
        vol = modal.Volume.from_name("{volume}")

        @app.function(volumes={{"/data": vol}})
        def use():
            modal.Volume.delete("{volume}")
            open("/data/lost", "w").write("x")
            try:
                vol.commit()
            except modal.exception.NotFoundError as error:
                print("refused:", error)
            return open("/data/lost").read()

        @app.local_entrypoint()
        def main():
            print("still", use.remote())
        """
    )
    out = platform.modal("run", path).succeeded().out
    assert "still x" in out
    assert "refused: There is no volume" in out
    platform.modal("run", path).failed_with_one_sentence("There is no volume", volume)
    wait_until(lambda: not glob.glob(f"{platform.data_dir}/volumes/*/open/*"), "the files to be deleted")


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        ('volumes={"/data": vol, "/data/inner": other}', "within"),
        ('volumes={"data": vol}', "absolute"),
        ('volumes={"/": vol}', "absolute"),
        ('volumes={"/proc/x": vol}', "belongs to the system"),
        ('volumes={"/root/": vol}', "would hide your program"),
        ('volumes={"/usr": vol}', "would hide parts of the system"),
        ('volumes={"/a": vol, "/b": vol}', "two paths"),
        ('volumes={"/a": vol, "/a/": other}', "Two things"),
        ('volumes={"/a": vol}, network_file_systems={"//a/.": nfs}', "Two things"),
        ('volumes={"/a": "name"}', "modal.Volume"),
        ('volumes={"/a": vol}, network_file_systems={"/a/b": nfs}', "within"),
    ],
)
def test_impossible_mounts_are_refused_before_anything_runs(
    mounts: str, words: str, platform: Platform, program: Program
) -> None:
    path = program(
        f"""
        import modal
        app = modal.App("volumes")
        vol = modal.Volume.from_name("x", create_if_missing=True)
        other = modal.Volume.from_name("y", create_if_missing=True)
        nfs = modal.NetworkFileSystem.from_name("z", create_if_missing=True)

        @app.function({mounts})
        def f():
            pass
        """
    )
    done = platform.modal("run", path)
    assert done.code == 1
    assert words in done.err


def test_a_network_file_system_is_live(platform: Platform, program: Program) -> None:
    path = program(
        """
        import io, os, time
        import modal
        app = modal.App("shared")
        nfs = modal.NetworkFileSystem.from_name("shared-nfs", create_if_missing=True)

        @app.function(network_file_systems={"/shared": nfs})
        def write():
            os.makedirs("/shared/d", exist_ok=True)
            open("/shared/d/from-one.txt", "w").write("1")
            while not os.path.exists("/shared/answer"):
                time.sleep(0.05)
            return open("/shared/answer").read()

        @app.function(network_file_systems={"/elsewhere": nfs})
        def answer():
            while not os.path.exists("/elsewhere/d/from-one.txt"):
                time.sleep(0.05)
            open("/elsewhere/answer.new", "w").write("2")
            os.rename("/elsewhere/answer.new", "/elsewhere/answer")

        @app.local_entrypoint()
        def main():
            one, other = write.spawn(), answer.spawn()
            print("answer", one.get(), other.get())
            told = []
            print("wrote", nfs.write_file("/up/file.bin", io.BytesIO(b"x" * 3_000_000), lambda **kw: told.append(kw)))
            print("told", sum(one.get("advance", 0) for one in told), told[-1])
            print("names", [entry.path for entry in nfs.listdir("/d")], [e.path for e in nfs.listdir("**/*.txt")])
            print("size", len(b"".join(nfs.read_file("up/file.bin"))))
            nfs.remove_file("/up", recursive=True)
            print("left", sorted(entry.path for entry in nfs.iterdir("/")))
        """
    )
    out = platform.modal("run", path).succeeded().out
    assert "answer 2 None" in out
    assert "wrote 3000000" in out
    assert "told 3000000 {'complete': True}" in out
    assert "names ['from-one.txt'] ['d/from-one.txt']" in out
    assert "size 3000000" in out
    assert "left ['answer', 'd']" in out
    platform.modal("nfs", "delete", "shared-nfs", "--yes").succeeded()


def test_the_commands(platform: Platform, tmp_path: Path, volume: str) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/a.txt").write_text("a")
    (tmp_path / "tree/sub/b.txt").write_text("b")
    platform.modal("volume", "put", volume, tmp_path / "tree").succeeded()
    platform.modal("volume", "put", volume, tmp_path / "tree/a.txt", "/copy/").succeeded()
    assert files(platform, volume) == ["a.txt", "copy", "sub"]
    assert files(platform, volume, "/copy") == ["copy/a.txt"]
    platform.modal("volume", "put", volume, tmp_path / "tree/a.txt", "/a.txt").failed_with_one_sentence("--force")
    (tmp_path / "tree/a.txt").write_text("new")
    platform.modal("volume", "put", volume, tmp_path / "tree/a.txt", "/a.txt", "--force").succeeded()
    assert text(platform, volume, "a.txt") == "new"
    platform.modal("volume", "put", volume, tmp_path / "tree/a.txt", "/sub").failed_with_one_sentence("directory")
    platform.modal("volume", "put", volume, tmp_path / "none").failed_with_one_sentence("does not exist")
    platform.modal("volume", "cp", volume, "sub", "a.txt", "copy").succeeded()
    assert files(platform, volume, "copy") == ["copy/a.txt", "copy/sub"]
    platform.modal("volume", "get", volume, "/", tmp_path / "got").succeeded()
    assert (tmp_path / "got/copy/sub/b.txt").read_text() == "b"
    platform.modal("volume", "get", volume, "a.txt", tmp_path / "got/a.txt").failed_with_one_sentence("--force")
    platform.modal("volume", "get", volume, "missing", tmp_path).failed_with_one_sentence("/missing")
    platform.modal("volume", "rm", volume, "copy").failed_with_one_sentence("recursive")
    platform.modal("volume", "rm", volume, "copy", "-r").succeeded()
    platform.modal("volume", "ls", volume, "../..").failed_with_one_sentence("..")
    assert files(platform, volume) == ["a.txt", "sub"]
    platform.modal("volume", "rename", volume, f"{volume}-2", "--yes").succeeded()
    assert files(platform, f"{volume}-2") == ["a.txt", "sub"]
    platform.modal("volume", "rename", f"{volume}-2", volume, "--yes").succeeded()
    listed = json.loads(platform.modal("volume", "list", "--json").succeeded().out)
    assert volume in [row["name"] for row in listed]
    out = platform.intermodal("volume", "verify").succeeded().out
    assert f"{volume}: as it was committed" in out


def test_many_files_in_a_directory_and_a_huge_one(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import os
        import modal
        app = modal.App("volumes")
        vol = modal.Volume.from_name("{volume}")

        @app.function(volumes={{"/data": vol}})
        def fill():
            os.mkdir("/data/many")
            for number in range(100_000):
                open(f"/data/many/{{number}}", "w").close()
            with open("/data/huge", "wb") as file:
                file.seek(20 * 1024**3)
                file.write(b"end")
            vol.commit()

        @app.local_entrypoint()
        def main():
            fill.remote()
            print("names", len({{entry.path for entry in vol.iterdir("/many")}}))
            [huge] = [entry for entry in vol.listdir("/") if entry.path == "huge"]
            print("size", huge.size)
        """
    )
    out = platform.modal("run", path).succeeded().out
    assert "names 100000" in out
    assert f"size {20 * 1024**3 + 3}" in out
    assert is_sound(platform, volume)
