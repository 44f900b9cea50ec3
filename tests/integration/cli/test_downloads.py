"""`modal nfs get` against a real server: links, what is at the destination, and an end in the middle.

The files lie in the server's directory, where a container would make them.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from real_server import RealServer, until

import modal

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
MODAL = Path(sys.executable).parent / "modal"


@pytest.fixture
def share(real_server: RealServer, request: pytest.FixtureRequest) -> Path:
    """The directory of the network file system "files", which is empty."""
    nfs = modal.NetworkFileSystem.lookup("files", create_if_missing=True)
    for entry in nfs.listdir("/"):
        nfs.remove_file(entry.path, recursive=True)
    return real_server.settings.data_dir / "shared" / nfs.object_id


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [str(MODAL), "nfs", *map(str, args)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    return done


def get(*args: object, code: int = 0) -> str:
    """What `modal nfs get` of "files" says."""
    done = run("get", "files", *args)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr


def write(folder: Path, *names: str) -> None:
    """Make files, each of which holds its path."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def content(folder: Path) -> dict[str, str]:
    """What is below a directory: what files hold, and "-> …" for links."""
    return {
        str(path.relative_to(folder)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


# -- links


def test_links_within_the_tree_stay_links(share: Path, tmp_path: Path) -> None:
    write(share, "hub/blobs/a1", "hub/snapshots/abc/readme")
    (share / "hub/snapshots/abc/model.bin").symlink_to("../../blobs/a1")
    (share / "hub/snapshots/main").symlink_to("abc")
    (share / "hub/snapshots/abc/through").symlink_to("../main/model.bin")
    (share / "hub/top").symlink_to(".")
    assert "Wrote 2 files and 4 links" in get("hub", tmp_path / "got")
    assert content(tmp_path / "got") == {
        "blobs/a1": "hub/blobs/a1",
        "snapshots/abc/readme": "hub/snapshots/abc/readme",
        "snapshots/abc/model.bin": "-> ../../blobs/a1",
        "snapshots/abc/through": "-> ../main/model.bin",
        "snapshots/main": "-> abc",
        "top": "-> .",
    }
    assert (tmp_path / "got/snapshots/main/through").read_text() == "hub/blobs/a1"
    assert "--force" in get("hub/snapshots/*", tmp_path / "got/snapshots", code=1)
    get("hub", tmp_path / "got/", "--force")
    get("hub", tmp_path / "got/", "--force")
    assert (tmp_path / "got/hub/snapshots/main/through").read_text() == "hub/blobs/a1"


def test_links_out_of_the_tree_become_their_content(share: Path, tmp_path: Path) -> None:
    write(share, "hub/blobs/a1", "hub/data/x/y", "hub/data/z", "hub/abc/readme")
    (share / "hub/abc/model.bin").symlink_to("../blobs/a1")
    (share / "hub/abc/absolute").symlink_to("/hub/blobs/a1")
    (share / "hub/abc/data").symlink_to("../data")
    (share / "hub/data/inner").symlink_to("x/y")
    (share / "hub/data/outer").symlink_to("../blobs/a1")
    assert "Left out" not in get("hub/abc", tmp_path / "got")
    assert content(tmp_path / "got") == {
        "readme": "hub/abc/readme",
        "model.bin": "hub/blobs/a1",
        "absolute": "hub/blobs/a1",
        "data/x/y": "hub/data/x/y",
        "data/z": "hub/data/z",
        "data/inner": "-> x/y",
        "data/outer": "hub/blobs/a1",
    }
    assert "Wrote 2 files to" in get("hub/abc/[am]*", tmp_path / "links")
    assert content(tmp_path / "links") == {"model.bin": "hub/blobs/a1", "absolute": "hub/blobs/a1"}


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../../../../etc/passwd", "/etc", "gone", "circle"])
def test_links_that_lead_nowhere_are_left_out(target: str, share: Path, tmp_path: Path) -> None:
    write(share, "d/f")
    (share / "d/circle").symlink_to("circle")
    (share / "d/bad").symlink_to(target)
    said = get("d", tmp_path / "got")
    assert f"Left out 'd/bad', which is a link to {target!r}" in said
    assert content(tmp_path / "got") == {"f": "d/f"}
    assert "no file" in get("d/[bc]*", tmp_path / "none", code=1)
    get("d/bad", tmp_path / "none", code=1)
    assert not (tmp_path / "none").exists()


def test_links_to_where_they_are_do_not_go_on_without_end(share: Path, tmp_path: Path) -> None:
    write(share, "d/f", "e/g")
    (share / "d/up").symlink_to("..")
    (share / "d/root").symlink_to("/")
    (share / "d/e").symlink_to("../e")
    (share / "e/d").symlink_to("/d")
    said = get("d", tmp_path / "got")
    for path in ("d/up", "d/root", "d/e/d"):
        assert f"Left out {path!r}" in said
    assert content(tmp_path / "got") == {"f": "d/f", "e/g": "e/g"}


def test_nothing_is_written_through_links_of_an_earlier_download(share: Path, tmp_path: Path) -> None:
    write(share, "d/.ssh/known", "d/p/f")
    (share / "d/p/link").symlink_to("../.ssh")
    (share / "d/p/keys").symlink_to("../.ssh/known")
    get("d", tmp_path / "got")
    (share / "d/p/link").unlink()
    (share / "d/p/keys").unlink()
    write(share, "d/p/link/authorized_keys", "d/p/keys")
    said = get("d/p", tmp_path / "got", "--force", code=1)
    assert "got/p/link' is a link" in said
    (share / "d/p/link/authorized_keys").unlink()
    (share / "d/p/link").rmdir()
    get("d/p", tmp_path / "got", "--force")
    get("d/p/keys", f"{tmp_path}/got/p/", "--force")
    assert content(tmp_path / "got") == {
        ".ssh/known": "d/.ssh/known", "p/f": "d/p/f", "p/keys": "d/p/keys", "p/link": "-> ../.ssh",
    }  # fmt: skip


# -- what is at the destination


def test_a_link_that_the_user_names_is_followed(share: Path, tmp_path: Path) -> None:
    write(share, "f", "d/g")
    write(tmp_path, "target")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "target").chmod(0o600)
    os.chown(tmp_path / "target", 1234, 1234)
    assert "--force" in get("f", tmp_path / "link", code=1)
    get("f", tmp_path / "link", "--force")
    assert content(tmp_path) == {"target": "f", "link": "-> target"}
    status = (tmp_path / "target").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, 1234)
    (tmp_path / "new").symlink_to("made")
    get("f", tmp_path / "new")
    assert (tmp_path / "made").read_text() == "f"
    (tmp_path / "folder").mkdir()
    (tmp_path / "to").symlink_to("folder")
    get("d", tmp_path / "to")
    assert content(tmp_path / "folder") == {"d/g": "d/g"}


def test_devices_and_pipes_are_written_into(share: Path, tmp_path: Path) -> None:
    write(share, "f", "d/null", "d/pipe")
    os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mkfifo(tmp_path / "pipe")
    for options in ([], ["--force"]):
        get("f", tmp_path / "null", *options)
        read: list[str] = []
        reader = threading.Thread(target=lambda got=read: got.append((tmp_path / "pipe").read_text()), daemon=True)
        reader.start()
        get("f", tmp_path / "pipe", *options)
        reader.join(20)
        assert read == ["f"]
        assert "no regular file" in get("d/*", tmp_path, *options, code=1)
    assert (tmp_path / "null").is_char_device()
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null", "pipe"]


def test_stdout_by_its_path(share: Path, tmp_path: Path) -> None:
    write(share, "f")
    assert run("get", "files", "f", "/dev/stdout").stdout == "f"
    with (tmp_path / "out").open("w") as file:
        file.write("before ")
        file.flush()
        command = [MODAL, "nfs", "get", "files", "f", "/dev/stdout"]
        assert subprocess.run(command, stdout=file, timeout=60).returncode == 0
    assert (tmp_path / "out").read_text() == "before f"


def test_files_that_are_overwritten_keep_their_modes(share: Path, tmp_path: Path) -> None:
    write(share, "d/f", "d/g")
    write(tmp_path, "d/f")
    (tmp_path / "d/f").chmod(0o750)
    get("d", tmp_path, "--force")
    assert stat.S_IMODE((tmp_path / "d/f").stat().st_mode) == 0o750
    assert content(tmp_path) == {"d/f": "d/f", "d/g": "d/g"}


def test_what_is_no_file(share: Path, tmp_path: Path) -> None:
    os.mkfifo(share / "pipe")
    assert "'pipe' is a fifo" in get("pipe", tmp_path / "got", code=1)
    assert "'pipe' is a fifo" in get("pipe", "-", code=1)
    assert "no file" in get("p*", tmp_path / "got", code=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_no_draft(number: signal.Signals, share: Path, tmp_path: Path) -> None:
    with (share / "big").open("wb") as file:
        for _ in range(512):
            file.write(os.urandom(1024) * 1024)
    process = subprocess.Popen([MODAL, "nfs", "get", "files", "big", tmp_path / "got"], stderr=subprocess.PIPE)
    until(lambda: any(path.stat().st_size for path in tmp_path.iterdir()), "the download to begin")
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert b"Traceback" not in said
