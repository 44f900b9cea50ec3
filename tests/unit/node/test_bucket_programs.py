from __future__ import annotations

from pathlib import Path

import pytest

from intermodal.model.container import MountedBucket
from intermodal.model.errors import RuntimeFailure
from intermodal.node.bucket_programs import failure_of, fuse_command
from modal.exception import InvalidError, NotFoundError

KEYS = {"AWS_ACCESS_KEY_ID": "i-am", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_REGION": "eu-1"}
FULL = MountedBucket("/b", "abc", "https://s3.example.com", "a/b/", True, True, KEYS)
BARE = MountedBucket("/b", "abc")


@pytest.mark.parametrize("program", ["/usr/bin/s3fs", "/usr/bin/mount-s3"])
def test_keys_are_in_the_environment_alone(program: str) -> None:
    command = fuse_command(program, FULL, Path("/point"), 100_000)
    assert command.env["AWS_SECRET_ACCESS_KEY"] == "hidden"
    assert not any("hidden" in word or "i-am" in word for word in command.argv)
    assert "hidden" not in repr(command) + repr(FULL)


def test_s3fs_is_told_everything() -> None:
    argv = fuse_command("/usr/bin/s3fs", FULL, Path("/point"), 100_000).argv
    assert argv[:4] == ("/usr/bin/s3fs", "abc:/a/b", "/point", "-f")
    options = set(argv[5::2])
    assert {"url=https://s3.example.com", "use_path_request_style", "endpoint=eu-1", "uid=100000"} < options
    assert {"ro", "requester_pays", "allow_other"} < options
    bare = set(fuse_command("/usr/bin/s3fs", BARE, Path("/point"), 1).argv)
    assert "public_bucket=1" in bare
    assert not {"ro", "requester_pays", "use_path_request_style"} & bare


def test_mount_s3_is_told_everything() -> None:
    argv = set(fuse_command("/usr/bin/mount-s3", FULL, Path("/point"), 100_000).argv)
    assert {"--prefix=a/b/", "--endpoint-url=https://s3.example.com", "--region=eu-1", "--uid=100000"} < argv
    assert {"--read-only", "--requester-pays", "--foreground", "--allow-other"} < argv
    bare = set(fuse_command("/usr/bin/mount-s3", BARE, Path("/point"), 1).argv)
    assert {"--no-sign-request", "--allow-delete", "--allow-overwrite"} < bare


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("x\n[CRT] bucket or key not found(host=h) - result", NotFoundError, "there is no such bucket"),
        ("[CRT] s3fs.cpp:s3fs_check_service(3587): Bad Request(host=h)", InvalidError, "AWS_REGION"),
        ("[CRT] invalid credentials(host=h) - result", InvalidError, "access is denied"),
        ("[CRT] unable to connect(host=h) - result", RuntimeFailure, "cannot be reached from containers"),
        ("strange\nthings\n", RuntimeFailure, "things"),
        ("", RuntimeFailure, "without a reason"),
    ],
)
def test_what_programs_say_becomes_a_reason(said: str, kind: type[Exception], words: str) -> None:
    error = failure_of(FULL, said)
    assert isinstance(error, kind)
    assert words in str(error)
    assert "'abc' cannot be mounted at '/b'" in str(error)
