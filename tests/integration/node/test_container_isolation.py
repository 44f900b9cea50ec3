"""What code in a container can see and do of the machine below it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from node_fixtures import Site

FACTS = """
import ctypes, glob
ready()
libc = ctypes.CDLL(None, use_errno=True)
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
def refused(path, text="1"):
    try:
        open(path, "w").write(text)
    except OSError as error:
        return error.strerror
def call(result):
    return ctypes.get_errno() if result < 0 else 0
open("/usr/bin/mine", "w").write("x")
report({
    "uid_map": open("/proc/self/uid_map").read().split(),
    "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
    "no_new_privs": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
    "bounding": int(status["CapBnd"], 16), "effective": int(status["CapEff"], 16),
    "pids": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
    "mounts": open("/proc/self/mountinfo").read(),
    "hostname": os.uname().nodename, "cwd": os.getcwd(),
    "masked": sum(len(open(path, "rb").read(64)) for path in ("/proc/keys", "/proc/timer_list") if os.path.exists(path)),
    "sysctl": refused("/proc/sys/kernel/hostname"), "sys": refused("/sys/kernel/mm/ksm/run"),
    "sdk": refused("/opt/intermodal/sdk/x"), "trigger": refused("/proc/sysrq-trigger"),
    "mount": call(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
    "unshare": call(libc.unshare(0x10000000)),
    "keyctl": call(libc.syscall(250, 0, 0, 0, 0, 0)),
    "devices": sorted(os.listdir("/dev")),
    "python_owner": os.stat(sys.executable).st_uid,
    "tmp": oct(os.stat("/tmp").st_mode & 0o7777), "root": os.stat("/").st_uid,
    "cgroup": open("/proc/self/cgroup").read(),
    "fds": sorted(os.readlink(f"/proc/self/fd/{f}") for f in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{f}")),
})
"""  # noqa: E501


async def test_a_container_is_isolated(site: Site) -> None:
    name = await site.start(FACTS)
    facts = await site.ask(name)

    assert facts["uid_map"] == ["0", "100000", "65536"]
    assert (facts["uid"], facts["gid"], facts["groups"]) == (0, 0, [])
    assert (facts["no_new_privs"], facts["seccomp"]) == ("1", "2")
    dangerous = {1 << number for number in (12, 13, 16, 17, 19, 21, 22, 23, 24, 25, 27)}  # NET_ADMIN, SYS_ADMIN, …
    assert facts["bounding"] == facts["effective"]
    assert not any(facts["bounding"] & bit for bit in dangerous)
    assert len(facts["pids"]) == 2  # the first process and the runner
    assert str(site.data) not in facts["mounts"].replace("/proc/self/fd", "")
    assert (facts["hostname"], facts["cwd"]) == ("modal", "/root")
    assert facts["masked"] == 0
    assert all(facts[name] for name in ("sysctl", "sys", "sdk", "trigger")), facts
    assert facts["mount"] == facts["unshare"] == facts["keyctl"] == 1  # EPERM
    assert not {"sda", "vda", "mem", "kmsg", "loop0"} & set(facts["devices"])
    assert (facts["python_owner"], facts["root"], facts["tmp"]) == (0, 0, "0o1777")
    assert "intermodal" not in facts["cgroup"]


async def test_what_a_container_writes_stays_in_it(site: Site) -> None:
    first = await site.start(FACTS)
    await site.ask(first)
    second = await site.start("ready(); report(os.path.exists('/usr/bin/mine'))")
    assert await site.ask(second) is False
    assert not (site.data / "storage/base/usr/bin/mine").exists()


async def test_other_users_of_the_machine_cannot_reach_a_container(site: Site) -> None:
    name = await site.start("ready(); hear()")
    home = site.agent._layout.containers / name
    assert home.stat().st_mode & 0o777 == 0o700
    assert home.stat().st_uid == 100_000
    assert (site.data / "containers").stat().st_mode & 0o077 == 0


async def test_the_number_of_processes_is_limited(node_data: Path, runner_home: Path) -> None:
    from node_fixtures import open_site

    script = """
        import threading
        ready()
        gate = threading.Event()
        count = 0
        try:
            for _ in range(200):
                threading.Thread(target=gate.wait, daemon=True).start()
                count += 1
        except RuntimeError:
            pass
        report(count)
    """
    async with open_site(node_data, runner_home, pids_limit=50) as site:
        assert 20 < await site.ask(await site.start(script)) < 50


async def test_no_descriptor_of_the_agent_is_inherited(site: Site) -> None:
    secret = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        facts = await site.ask(await site.start(FACTS))
    finally:
        os.close(secret)
    kinds = {name.split(":")[0] for name in facts["fds"]}
    assert kinds <= {"/dev/null", "pipe", "socket"}, facts["fds"]


@pytest.mark.parametrize("blocked", [True, False])
async def test_block_network_leaves_only_loopback(site: Site, blocked: bool) -> None:
    script = """
        import fcntl
        ready()
        names = [name for _, name in socket.if_nameindex()]
        server = socket.create_server(("127.0.0.1", 0))
        socket.create_connection(server.getsockname(), 2).close()
        report(names)
    """
    names = await site.ask(await site.start(script, block_network=blocked))
    real = {name for name in names if name in ("lo", "eth0")}
    assert real == ({"lo"} if blocked else {"lo", "eth0"})
