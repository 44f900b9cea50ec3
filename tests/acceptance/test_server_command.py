"""The server as its administrator meets it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance_harness import EXAMPLES, Platform, Program, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a short name, as those of sockets are limited."""
    path = Path(tempfile.mkdtemp(prefix="ims-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def path_without_runc(folder: Path) -> str:
    """A PATH with every program of this machine but runc."""
    links = folder / "bin"
    links.mkdir()
    for place in reversed(os.environ["PATH"].split(os.pathsep)):
        if Path(place).is_dir():
            for program in Path(place).iterdir():
                (links / program.name).unlink(missing_ok=True)
                (links / program.name).symlink_to(program)
    (links / "runc").unlink()
    return str(links)


def test_status_tells_where_the_server_is(platform: Platform) -> None:
    told = json.loads(platform.intermodal("status", "--json").succeeded().out)
    server = platform.server()
    assert server is not None
    assert told["pid"] == server.pid
    assert told["url"].startswith("http://127.0.0.1:")
    assert told["socket"] == str(platform.data_dir / "run" / "server.sock")
    assert told["data_dir"] == str(platform.data_dir)
    assert told["version"]
    assert told["containers"] == 0
    shown = platform.intermodal("status").succeeded().out
    assert str(server.pid) in shown
    assert told["url"] in shown


def test_a_second_server_on_the_same_data_directory_is_refused(platform: Platform) -> None:
    server = platform.server()
    assert server is not None
    platform.intermodal("serve").failed_with_one_sentence(str(platform.data_dir), str(server.pid))
    again = platform.server()
    assert again is not None
    assert again.pid == server.pid, "the first server did not survive the second"
    assert "runs already" in platform.intermodal("up").succeeded().out


def test_a_port_that_is_taken_is_named(platform: Platform, folder: Path) -> None:
    port = json.loads(platform.intermodal("status", "--json").out)["url"].rpartition(":")[2]
    other = Platform(folder / "d", port=port)
    other.intermodal("up").failed_with_one_sentence(port, "in use")
    assert other.leftovers() == []


def test_status_without_a_server_says_how_to_start_one(folder: Path) -> None:
    other = Platform(folder / "d")
    other.intermodal("status").failed_with_one_sentence("not running", "intermodal up", code=3)
    assert json.loads(other.intermodal("status", "--json").out)["running"] is False
    assert "No server runs" in other.intermodal("down").succeeded().out


def test_the_doctor_finds_this_machine_fit(platform: Platform) -> None:
    ran = platform.intermodal("doctor")
    assert ran.code == 0, str(ran)
    assert "runc" in ran.out
    assert json.loads(platform.intermodal("doctor", "--json").out)["ok"] is True


def test_without_runc_everything_names_it_and_the_command_that_installs_it(
    folder: Path, path_without_runc: str, program: Program
) -> None:
    other = Platform(folder / "d")
    other.env["PATH"] = path_without_runc
    install = "apt-get install runc"
    other.intermodal("serve").failed_with_one_sentence("runc", install)
    other.intermodal("up").failed_with_one_sentence("runc", install)
    other.modal("run", EXAMPLES / "hello.py").failed_with_one_sentence("runc", install)
    ran = other.intermodal("doctor")
    assert ran.code == 1
    assert "fail  runc: not found" in ran.out
    assert "apt-get install -y runc" in ran.out
    assert other.leftovers() == []


def test_serve_runs_in_the_foreground_until_ctrl_c(folder: Path) -> None:
    other = Platform(folder / "d")
    with other.background("intermodal", "serve") as serving:
        serving.wait_for("serving http://127.0.0.1:")
        other.intermodal("status").succeeded()
        serving.send(signal.SIGINT)
        ran = serving.end(20)
    ran.shows_no_frame_of_ours()
    assert "Traceback" not in ran.out + ran.err
    assert ran.code in (0, 130)
    wait_until(lambda: other.leftovers() == [], f"nothing to be left: {other.leftovers()}", 5)


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system with room for a base image and little more."""
    image, place = folder / "disk", folder / "d"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(2048 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_during_a_build_is_named_and_a_smaller_build_works_after(
    small_disk: Path, program: Program
) -> None:
    other = Platform(small_disk / "d")
    app = """
        import modal
        image = modal.Image.debian_slim().run_commands("head -c {size} /dev/zero > /big; ls -l /big; cat /etc/hostname")
        app = modal.App("full", image=image)

        @app.function()
        def f():
            import os
            return os.path.getsize("/big")
    """
    try:
        ran = other.modal("run", program(app.format(size="4G").replace("big; ls", "big && ls")), seconds=170)
        ran.failed_with_one_sentence("Error: No space is left on the disk that holds images")
        assert "ls -l /big" in ran.err, "the disk was too small for the base image already"
        free = shutil.disk_usage(small_disk).free
        assert free > 500 * 1024 * 1024, f"what the failed build wrote is still there: {free} bytes are free"
        assert other.modal("run", program(app.format(size="1M")), seconds=120).succeeded().out == "1048576\n"
    finally:
        other.intermodal("down")
    wait_until(lambda: other.leftovers() == [], f"nothing to be left: {other.leftovers()}", 5)
