"""Builds that the machine cuts short."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import Blobs, Log, Secrets, commands, spec

from intermodal.builder.builder import BuildahBuilder
from intermodal.model.errors import DiskFull
from intermodal.runtimes.cgroups import Cgroups, data_key

pytestmark = pytest.mark.e2e

SCRIPT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from fakes import Log, Secrets, commands, spec
from intermodal.builder.builder import BuildahBuilder

class Echo(Log):
    def write(self, text):
        print(text, end="", flush=True)

async def main():
    builder = BuildahBuilder(Path(sys.argv[1]), None, Secrets(), registry=False)
    await builder.open()
    await builder.build(spec(commands("RUN echo begun && sleep 7654321")), Echo())

asyncio.run(main())
"""


async def test_a_killed_server_takes_its_build_along_and_the_next_cleans_up(
    builder: BuildahBuilder, data: Path, blobs: Blobs, secrets: Secrets
) -> None:
    await builder.build(spec(), Log())
    argv = [sys.executable, "-c", SCRIPT, str(data), str(Path(__file__).parent)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            while "begun" not in (line := server.stdout.readline()):
                assert line, "the build ended early"
            await until(lambda: sleepers() != [])
        finally:
            server.send_signal(signal.SIGKILL)
    await until(lambda: sleepers() == [])
    assert list((data / "run" / "builds").iterdir()) != []
    groups = Cgroups(f"/intermodal/{data_key(data)}-builds")
    assert groups.names() != set()
    containers = data / "storage" / "images" / "overlay-containers" / "containers.json"
    assert json.loads(containers.read_text()) != []

    after = BuildahBuilder(data, blobs, secrets, registry=False)
    await after.open()
    assert list((data / "run" / "builds").iterdir()) == []
    assert groups.names() == set()
    assert json.loads(containers.read_text()) == []
    assert str(data) not in Path("/proc/mounts").read_text()
    interrupted = spec(commands("RUN echo begun && sleep 7654321"))
    assert await after.get(after.image_id(interrupted)) is None
    await after.build(spec(commands("RUN echo works again")), Log())
    await after.close()


async def test_closing_the_builder_stops_its_builds(data: Path, blobs: Blobs, secrets: Secrets) -> None:
    builder = BuildahBuilder(data, blobs, secrets, registry=False)
    await builder.open()
    log = Log()
    build = asyncio.create_task(builder.build(spec(commands("RUN echo begun && sleep 7654321")), log))
    await until(lambda: "begun" in log.text)
    await builder.close()
    assert sleepers() == []
    with pytest.raises(asyncio.CancelledError):
        await build
    await builder.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "small", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


async def test_a_full_disk_is_reported_as_such_and_leaves_nothing(
    small_disk: Path, blobs: Blobs, secrets: Secrets
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    builder = BuildahBuilder(small_disk, blobs, secrets, registry=False)
    await builder.open()
    with pytest.raises(DiskFull, match="No space is left"):
        await builder.build(spec(), Log())
    assert await builder.get(builder.image_id(spec())) is None
    await builder.close()
    assert list((small_disk / "run" / "builds").iterdir()) == []


def sleepers() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if line.startswith("sleep\x007654321"):
            found.append(line)
    return found


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
