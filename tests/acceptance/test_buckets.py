"""Buckets in containers, from real S3 services: OpenStack Swift, and rclone for public ones."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from acceptance_harness import Outcome, Platform, Program, wait_until
from s3_service import OWNER, S3Service

from intermodal.node.mount_table import mounts_below, proc_lines

HEAD = """
    import os, sys, time
    import modal

    app = modal.App(image=modal.Image.debian_slim("3.11"))
    URL, NAME = {url!r}, {name!r}

    def bucket(name=NAME, url=URL, key={key!r}, secret={secret!r}, **more):
        keys = modal.Secret.from_dict({{"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}})
        return modal.CloudBucketMount(name, url, secret=keys, **more)
"""


@pytest.fixture(scope="module")
def service() -> Iterator[S3Service]:
    with tempfile.TemporaryDirectory(prefix="s3-") as folder:
        one = S3Service(Path(folder))
        try:
            one.start()
            yield one
        finally:
            one.stop()


@pytest.fixture
def name(service: S3Service) -> str:
    """A new bucket."""
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    service.make_bucket(name)
    return name


class Runner:
    def __init__(self, platform: Platform, program: Program, service: S3Service, name: str) -> None:
        self._platform = platform
        self._program = program
        self._head = HEAD.format(url=service.url, name=name, key=OWNER[0], secret=OWNER[1])

    def write(self, text: str) -> Path:
        return self._program(self._head + text)

    def __call__(self, text: str) -> Outcome:
        return self._platform.modal("run", self.write(text))


@pytest.fixture
def run(platform: Platform, program: Program, service: S3Service, name: str) -> Runner:
    return Runner(platform, program, service, name)


def fuse_processes(platform: Platform) -> dict[int, str]:
    """The programs that serve buckets and their launchers: their arguments, by their process id."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                arguments = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(platform.layout.buckets) in arguments:
                found[int(folder.name)] = arguments
    return found


def test_files_are_read_written_listed_renamed_and_removed(run: Runner, service: S3Service, name: str) -> None:
    service.put(name, "given.txt", b"from outside")
    service.put(name, "deep/er/file.txt", b"without directories")
    service.put(name, "doomed.txt", b"x")
    out = (
        run("""
    @app.function(volumes={"/bucket": bucket()})
    def f():
        names = sorted(os.listdir("/bucket")), os.listdir("/bucket/deep/er")
        texts = [open(f"/bucket/{path}").read() for path in ("given.txt", "deep/er/file.txt")]
        status = os.stat("/bucket/given.txt")
        os.makedirs("/bucket/new/dir")
        with open("/bucket/new/dir/made.txt", "w") as file:
            file.write("made")
        with open("/bucket/new/dir/made.txt", "a") as file:
            file.write(" and extended")
        with open("/bucket/large", "wb") as file:
            file.write(bytes(range(256)) * 100_000)
        os.rename("/bucket/new/dir/made.txt", "/bucket/renamed.txt")
        os.remove("/bucket/doomed.txt")
        return names, texts, status.st_uid, status.st_size, os.path.ismount("/bucket")

    @app.local_entrypoint()
    def main():
        import json
        print(json.dumps(f.remote()))
    """)
        .succeeded()
        .out
    )
    names, texts, owner, size, is_mount = json.loads(out.splitlines()[-1])
    assert names == [["deep", "doomed.txt", "given.txt"], ["file.txt"]]
    assert texts == ["from outside", "without directories"]
    assert (owner, size, is_mount) == (0, 12, True)
    assert service.get(name, "renamed.txt") == b"made and extended"
    assert service.get(name, "large") == bytes(range(256)) * 100_000
    assert not {"doomed.txt", "new/dir/made.txt"} & service.keys(name)


def test_a_prefix_shows_a_part_and_a_read_only_mount_refuses_writes(run: Runner, service: S3Service, name: str) -> None:
    service.put(name, "part/one.txt", b"1")
    service.put(name, "other.txt", b"2")
    out = (
        run("""
    @app.cls(volumes={"/part": bucket(key_prefix="part/"), "/read": bucket(read_only=True)})
    class C:
        @modal.method()
        def f(self):
            open("/part/two.txt", "w").write("2")
            try:
                open("/read/three.txt", "w")
            except OSError as error:
                refused = error.strerror
            return sorted(os.listdir("/part")), sorted(os.listdir("/read")), refused

    @app.function(volumes={"/b": bucket(key_prefix="not/yet/")})
    def elsewhere():
        open("/b/new.txt", "w").write("n")

    @app.local_entrypoint()
    def main():
        import json
        elsewhere.remote()
        print(json.dumps(C().f.remote()))
        moved = C.with_options(volumes={"/part": bucket(), "/read": bucket(read_only=True)})
        print(json.dumps(moved().f.remote()))
    """)
        .succeeded()
        .out
    )
    part, read, refused = json.loads(out.splitlines()[-2])
    assert part == ["one.txt", "two.txt"]
    assert {"other.txt", "part"} <= set(read)
    assert refused == "Read-only file system"
    assert service.get(name, "part/two.txt") == b"2"
    assert service.get(name, "not/yet/new.txt") == b"n"
    assert json.loads(out.splitlines()[-1])[0] == json.loads(out.splitlines()[-1])[1]  # as with_options says
    assert service.get(name, "two.txt") == b"2"
    assert "three.txt" not in service.keys(name)


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ('bucket(name="no-such-bucket")', ["'no-such-bucket'", "there is no such bucket"]),
        ('bucket(secret="wrong")', ["access is denied"]),
        ('bucket(key="test:guest", secret="guest-secret")', ["access is denied"]),
        ('modal.CloudBucketMount(NAME, URL, secret=modal.Secret.from_dict({"A": "b"}))', ["must have AWS_ACCESS_KEY"]),
        ("modal.CloudBucketMount(NAME, URL)", ["no such public bucket", "needs a secret"]),
        ('bucket(name="../etc")', ["'../etc' cannot be the name of a bucket"]),
        ('bucket(url="")', ["bucket_endpoint_url is empty"]),
        ('bucket(read_only="no")', ["read_only must be True or False"]),
        ('bucket(url="file:///etc")', ["bucket_endpoint_url must be"]),
        ('bucket(url=URL + ",allow_root")', ["bucket_endpoint_url must be"]),
        ('bucket(key_prefix="../up/")', ["key_prefix must be"]),
        ('bucket(key_prefix="a")', ["must end with a slash"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_bucket_is_said(run: Runner, platform: Platform, mount: str, words: list[str]) -> None:
    outcome = run(f"""
    @app.function(volumes={{"/bucket": {mount}}})
    def f():
        pass

    @app.local_entrypoint()
    def main():
        f.remote()
    """)
    assert outcome.code == 1, str(outcome)
    for word in words:
        assert word in outcome.err, str(outcome)
    outcome.shows_no_frame_of_ours()
    wait_until(lambda: not fuse_processes(platform), "the FUSE processes to end")


def test_a_public_bucket_needs_no_secret(run: Runner, service: S3Service, name: str) -> None:
    (service.public / name / "part").mkdir(parents=True)
    (service.public / name / "part/given.txt").write_text("from outside")
    out = (
        run(f"""
    @app.function(volumes={{
        "/public": modal.CloudBucketMount(NAME, {service.public_url!r}),
        "/part": modal.CloudBucketMount(NAME, {service.public_url!r}, key_prefix="part/", read_only=True),
    }})
    def f():
        open("/public/made.txt", "w").write("made")
        return os.listdir("/public/part"), open("/part/given.txt").read(), sorted(os.listdir("/public"))

    @app.local_entrypoint()
    def main():
        print("found", *f.remote())
    """)
        .succeeded()
        .out
    )
    assert "found ['given.txt'] from outside ['made.txt', 'part']" in out
    assert (service.public / name / "made.txt").read_text() == "made"


def test_containers_see_each_others_files(run: Runner) -> None:
    run("""
    @app.function(volumes={"/bucket": bucket()})
    def write(text):
        open("/bucket/shared.txt", "w").write(text)

    @app.function(volumes={"/there": bucket(read_only=True)})
    def read(text):
        deadline = time.monotonic() + 30
        while not os.path.exists("/there/shared.txt") or open("/there/shared.txt").read() != text:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    @app.local_entrypoint()
    def main():
        for text in ("first", "second and longer"):
            write.remote(text)
            read.remote(text)
    """).succeeded()


def test_a_killed_container_loses_no_closed_file_and_leaves_no_process(
    run: Runner, platform: Platform, service: S3Service, name: str
) -> None:
    outcome = run("""
    @app.function(volumes={"/bucket": bucket()})
    def f():
        with open("/bucket/closed.txt", "w") as file:
            file.write("closed")
        open_still = open("/bucket/open.txt", "w")
        os.kill(os.getpid(), 9)

    @app.local_entrypoint()
    def main():
        f.remote()
    """)
    assert outcome.code == 1, str(outcome)
    assert service.get(name, "closed.txt") == b"closed"
    wait_until(lambda: not fuse_processes(platform), "the FUSE process to end")
    wait_until(lambda: not list(platform.layout.buckets.iterdir()), "the mount to be gone")


def test_a_container_ends_also_when_the_service_hangs(
    run: Runner, platform: Platform, service: S3Service, name: str
) -> None:
    path = run.write("""
    @app.function(volumes={"/bucket": bucket()}, timeout=4)
    def f():
        file = open("/bucket/never.txt", "w")
        file.write("x" * 5_000_000)
        print("closes", flush=True)
        while not os.path.exists("/root/hangs"):
            time.sleep(0.05)
        file.close()

    @app.local_entrypoint()
    def main():
        try:
            f.remote()
        except modal.exception.FunctionTimeoutError:
            print("timed out")
    """)
    with platform.background("modal", "run", path) as running:
        running.wait_for("closes")
        [container] = platform.containers()
        with service.hanging():
            platform.modal("container", "exec", container, "touch", "/root/hangs").succeeded()
            running.wait_for("timed out", 60)
            wait_until(lambda: not platform.containers(), "the container to end")
        running.end().succeeded()
    wait_until(lambda: not fuse_processes(platform), "the FUSE process to end")


def test_buckets_that_hang_keep_nobody_else_waiting(
    run: Runner, platform: Platform, service: S3Service, volume: str, tmp_path: Path
) -> None:
    count = 20  # which is as many as a function may have, and more than asyncio's threads on most machines
    path = run.write(f"""
    @app.function(volumes={{f"/bucket-{{n}}": bucket() for n in range({count})}})
    def f():
        print("began", flush=True)

    @app.local_entrypoint()
    def main():
        f.remote()
    """)
    (tmp_path / "file").write_text("text")

    def waiting() -> int:
        """Mounts whose service has not answered yet."""
        table = proc_lines(Path("/proc/self/mountinfo"))
        return len(mounts_below(platform.layout.buckets, [line for line in table if " fuse" in line]))

    with platform.background("modal", "run", path) as running:
        with service.hanging():
            wait_until(lambda: waiting() == count, "all buckets to wait for their service")
            platform.modal("volume", "put", volume, tmp_path / "file").succeeded()
            assert waiting() == count
            assert "began" not in running.out
        running.end().succeeded()


def test_a_killed_server_leaves_nothing_that_the_next_does_not_remove(
    run: Runner, platform: Platform, service: S3Service, name: str
) -> None:
    path = run.write("""
    @app.function(volumes={"/bucket": bucket()})
    def f():
        open("/bucket/before.txt", "w").write("before")
        print("written", flush=True)
        time.sleep(600)

    @app.local_entrypoint()
    def main():
        f.remote()
    """)
    with platform.background("modal", "run", path) as running:
        running.wait_for("written")
        (mount,) = platform.layout.buckets.iterdir()
        processes = fuse_processes(platform)
        server = platform.server()
        assert server is not None
        assert not any(OWNER[1] in arguments for arguments in processes.values())
        (launcher,) = (one for one in server.children() if one.pid in processes)
        (process,) = (one.pid for one in launcher.children())
        assert set(processes) == {launcher.pid, process}
        assert set(psutil.Process(process).uids()) == {165_536}
        assert os.readlink(f"/proc/{process}/ns/net") != os.readlink(f"/proc/{server.pid}/ns/net")
        seen = proc_lines(Path(f"/proc/{process}/mountinfo"))
        assert mounts_below(mount, seen)
        assert mounts_below(platform.layout.run, seen) == []  # where other containers' files are mounted
        server.send_signal(signal.SIGKILL)
        wait_until(lambda: not fuse_processes(platform), "the FUSE process to end with its parent")
        running.send(signal.SIGKILL)
    platform.intermodal("up").succeeded()
    assert not mount.exists()
    assert str(mount) not in Path("/proc/mounts").read_text()
    assert service.get(name, "before.txt") == b"before"
    run("""
    @app.function(volumes={"/bucket": bucket()})
    def f():
        assert open("/bucket/before.txt").read() == "before"

    @app.local_entrypoint()
    def main():
        f.remote()
    """).succeeded()
