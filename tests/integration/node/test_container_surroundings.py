"""What a container is given: files, environment, network, disk, and a way to call the server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from node_fixtures import Site, leftovers, open_site, until

from intermodal.model.errors import BadImage, RuntimeFailure
from intermodal.node.hooks.network import default_mtu
from modal._wire import frames
from modal._wire.messages.common import FileEntry
from modal._wire.messages.function import Resources

CONNECT = """
    def reach(host, port, seconds=1.0):
        try:
            with socket.create_connection((host, port), seconds) as connection:
                return connection.recv(100).decode()
        except OSError as error:
            return None
    ready()
"""


def entry(site: Site, path: str, content: bytes, mode: int = 0o644) -> FileEntry:
    digest = hashlib.sha256(content).hexdigest()
    blob = site.data / "blobs" / digest
    blob.write_bytes(content)
    blob.chmod(0o644)
    return FileEntry(path, digest, len(content), mode)


async def test_mounted_files_appear_where_they_belong(site: Site) -> None:
    files = (
        entry(site, "/root/app.py", b"print('first')"),
        entry(site, "/root/app.py", b"print('second')"),
        entry(site, "/root/pkg/deep/run.sh", b"#!/bin/sh", 0o755),
        entry(site, "/lib/mine.txt", b"below a link of the image"),
        entry(site, "/tmp/note.txt", b"note"),
    )
    script = """
        ready()
        report({
            "app": open("/root/app.py").read(), "mode": oct(os.stat("/root/pkg/deep/run.sh").st_mode & 0o777),
            "owner": os.stat("/root/app.py").st_uid, "link": os.readlink("/lib"),
            "lib": open("/usr/lib/mine.txt").read(),
            "tmp": oct(os.stat("/tmp").st_mode & 0o7777), "path": "/root" in sys.path,
            "writable": open("/root/app.py", "a").write("x"),
        })
    """
    facts = await site.ask(await site.start(script, files=files))
    assert facts == {
        "app": "print('second')",
        "mode": "0o755",
        "owner": 0,
        "link": "usr/lib",
        "lib": "below a link of the image",
        "tmp": "0o1777",
        "path": True,
        "writable": 1,
    }
    # The blob, which the tree shares, has not changed.
    again = await site.ask(await site.start("ready(); report(open('/root/app.py').read())", files=files))
    assert again == "print('second')"
    assert len(list((site.data / "storage" / "trees").iterdir())) >= 1


@pytest.mark.parametrize("path", ["/root/../etc/passwd", "relative", "/etc/passwd/below", "/usr/bin"])
async def test_a_mount_that_does_not_fit_the_image_is_refused(site: Site, path: str) -> None:
    with pytest.raises(BadImage, match="mount"):
        await site.start("ready()", files=(entry(site, path, b"x"),))


async def test_a_mount_whose_content_is_missing_is_named(site: Site) -> None:
    with pytest.raises(RuntimeFailure, match=r"/root/gone\.py is missing"):
        await site.start("ready()", files=(FileEntry("/root/gone.py", "0" * 64, 1),))


async def test_the_environment_comes_from_the_image_and_the_function(site: Site) -> None:
    image = replace(
        site.image,
        env={"A": "image", "B": "image", "PYTHONPATH": "/image/lib", "PIP_CERT": "/mine"},
        workdir="/var/new",
    )
    name = await site.start("ready(); report([dict(os.environ), os.getcwd()])", image=image, env={"B": "function"})
    env, cwd = await site.ask(name)
    assert (env["A"], env["B"], cwd) == ("image", "function", "/var/new")
    assert env["PYTHONPATH"] == "/root:/opt/intermodal/sdk:/image/lib:/opt/intermodal/vendor"
    assert (env["HOME"], env["INTERMODAL_CONTAINER_ID"]) == ("/root", name)
    assert env["PIP_CERT"] == "/mine"
    if Path("/etc/ssl/certs/ca-certificates.crt").exists():
        assert env["SSL_CERT_FILE"] == "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture
def world() -> Iterator[tuple[str, int]]:
    """A server elsewhere: in a network namespace of its own, which tells each client its address."""
    server = (
        "import socket, sys\n"
        "server = socket.create_server(('198.51.100.2', 8080))\n"
        "print('up', flush=True)\n"
        "while True:\n"
        "    connection, (host, _) = server.accept()\n"
        "    connection.sendall(host.encode()); connection.close()\n"
    )
    name = f"world{os.getpid()}"

    def ip(command: str) -> None:
        subprocess.run(["ip", *command.split()], check=True)

    with ExitStack() as stack:
        ip(f"netns add {name}")
        stack.callback(ip, f"netns del {name}")
        ip(f"link add {name} type veth peer name w0 netns {name}")
        ip(f"addr add 198.51.100.1/30 dev {name}")
        ip(f"link set {name} up")
        for command in ("link set lo up", "addr add 198.51.100.2/30 dev w0", "link set w0 up"):
            subprocess.run(["ip", "netns", "exec", name, "ip", *command.split()], check=True)
        process = stack.enter_context(
            subprocess.Popen(["ip", "netns", "exec", name, sys.executable, "-c", server], stdout=subprocess.PIPE)
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield "198.51.100.2", 8080


async def test_a_container_reaches_the_world_by_nat(site: Site, world: tuple[str, int]) -> None:
    # The world has no route back to the container's own address, and sees the machine's.
    script = CONNECT + f"    report([reach('{world[0]}', {world[1]}, 5), open('/sys/class/net/eth0/mtu').read()])"
    seen, mtu = await site.ask(await site.start(script))
    assert seen == "198.51.100.1"
    assert int(mtu) == default_mtu()


async def test_a_blocked_network_reaches_nothing(site: Site, world: tuple[str, int]) -> None:
    script = CONNECT + f"    report(reach('{world[0]}', {world[1]}))"
    assert await site.ask(await site.start(script, block_network=True)) is None


async def test_a_container_reaches_neither_the_machine_nor_its_neighbours(site: Site, world: tuple[str, int]) -> None:
    neighbour = await site.start(
        """
        ready()
        server = socket.create_server(("0.0.0.0", 7777))
        report(open("/etc/hosts").read().split()[2])
        server.accept()
        """
    )
    address = await site.ask(neighbour)
    with socket.create_server(("0.0.0.0", 0)) as service:
        port = service.getsockname()[1]
        targets = [(address, 7777), ("198.51.100.1", port), (address.rpartition(".")[0] + ".1", port)]
        calls = ", ".join(f"reach('{host}', {number}, 0.4)" for host, number in targets)
        script = CONNECT + f"    report([{calls}, reach('169.254.169.254', 80, 0.4)])"
        assert await site.ask(await site.start(script)) == [None, None, None, None]
        service.settimeout(0.01)
        with pytest.raises(TimeoutError):
            service.accept()


async def test_name_servers_are_the_machines(site: Site) -> None:
    text = await site.ask(await site.start("ready(); report(open('/etc/resolv.conf').read())"))
    host = Path("/etc/resolv.conf").read_text()
    assert [line for line in host.splitlines() if line not in text and "127." not in line] == []


async def test_an_ephemeral_disk_is_limited(site: Site) -> None:
    script = """
        ready()
        written = 0
        try:
            with open("/var/big", "wb") as file:
                while written < 100:
                    file.write(bytes(1 << 20))
                    written += 1
        except OSError as error:
            written = [written, error.strerror]
        report(written)
    """
    written, reason = await site.ask(await site.start(script, resources=Resources(ephemeral_disk=32)))
    assert 16 < written < 32
    assert reason == "No space left on device"


async def test_calls_from_user_code_go_to_the_server(node_data: Path, runner_home: Path) -> None:
    class Api:
        """Answers every frame with itself."""

        def accept(self, container_id: str, transport: asyncio.Transport, first_frame: bytes) -> asyncio.Protocol:
            class Echo(asyncio.Protocol):
                def data_received(self, data: bytes) -> None:
                    transport.write(data)

            protocol = Echo()
            protocol.data_received(frames.length_prefixed(frames.pack({"hello": container_id})))
            return protocol

    script = """
        ready()
        runner, sock = sock, socket.socket(socket.AF_UNIX)
        dial()
        say({"t": "hello", "protocol": 1})
        sock.sendall(struct.pack(">I", 3) + b"abc")
        header, _ = hear()
        answered = exactly(7).decode("latin-1")
        sock = runner
        report([header, answered])
    """
    async with open_site(node_data, runner_home, api=Api()) as site:
        name = await site.start(script)
        assert await site.ask(name) == [{"hello": name}, struct.pack(">I", 3).decode("latin-1") + "abc"]


async def test_a_new_agent_cleans_up_after_one_that_was_killed(node_data: Path, runner_home: Path) -> None:
    program = f"""
import asyncio, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[3] / "src")]!r}
from pathlib import Path
from node_fixtures import ECHO, open_site
from modal._wire.messages.function import Resources
async def main():
    async with open_site(Path({str(node_data)!r}), Path({str(runner_home)!r})) as site:
        await site.start(ECHO)
        await site.start(ECHO, resources=Resources(ephemeral_disk=16))
        print("running", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"running\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert len(leftovers(node_data)) > 5

    async with open_site(node_data, runner_home) as site:
        assert list(site.agent._layout.containers.iterdir()) == []
        assert list((node_data / "containers").iterdir()) == []
        groups = [path for path in leftovers(node_data) if "cgroup" in path]
        assert [entry for group in groups for entry in Path(group).iterdir() if entry.is_dir()] == []
        environments = [_environment(process) for process in Path("/proc").glob("[0-9]*")]
        assert b"INTERMODAL_" in b"".join(environments), "environments can be read"
        assert not [
            env for env in environments if b"INTERMODAL_CONTAINER_ID=ta-1" in env and str(site.data).encode() in env
        ]


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


async def test_two_agents_on_one_machine_do_not_meet(site: Site, runner_home: Path, tmp_path: Path) -> None:
    await site.ask(await site.start("ready(); report(1); hear()"))
    async with open_site(tmp_path, runner_home) as second:
        assert second.agent._layout.key != site.agent._layout.key
    assert await site.ask(await site.start("ready(); report(2)")) == 2


async def test_closing_ends_running_containers(node_data: Path, runner_home: Path) -> None:
    async with open_site(node_data, runner_home) as site:
        name = await site.start("ready(); time.sleep(60)")
        await until(lambda: name in site.recorder.ready)
    assert name in site.recorder.exits
    with pytest.raises(RuntimeFailure, match="shutting down"):
        await site.start("ready()")
