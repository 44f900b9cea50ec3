"""The helper process that makes namespaces: ``python -m intermodal.node.network.maker <socket fd> <uid base>``.

A user namespace can only be made by a process with a single thread, which the agent is not. For each request the helper
forks a child into a new user and network namespace, maps the ids, wires the network, and hands the two namespaces back
as descriptors. Nothing else refers to them: when the agent dies, its namespaces and their interfaces die with it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from intermodal.node.network.netlink import Netlink
from intermodal.runtimes.syscalls import CLONE_NEWNET, CLONE_NEWUSER, unshare

MAPPED_IDS = 65_536
INSIDE = "eth0"


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    uid_base = int(sys.argv[2])
    while request := connection.recv(4096):
        descriptors: list[int] = []
        try:
            descriptors = make(json.loads(request), uid_base)
            reply = {"error": ""}
        except OSError as error:
            reply = {"error": error.strerror or str(error)}
        socket.send_fds(connection, [json.dumps(reply).encode()], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def make(request: dict[str, Any], uid_base: int) -> list[int]:
    """Make one pair of namespaces and return their descriptors: user, network. Raises OSError."""
    from_child, to_agent = os.pipe()
    from_agent, to_child = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(from_child)
        os.close(to_child)
        os._exit(_live_inside(request, to_agent, from_agent))
    os.close(to_agent)
    os.close(from_agent)
    descriptors: list[int] = []
    try:
        if not os.read(from_child, 1):
            raise OSError("the kernel refuses new user or network namespaces; see user.max_user_namespaces")
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{kind}").write_text(f"0 {uid_base} {MAPPED_IDS}")
        for kind in ("user", "net"):
            descriptors.append(os.open(f"/proc/{child}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
        if request:
            _wire_outside(request, descriptors[1])
        os.write(to_child, b"1")
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    finally:
        os.close(from_child)
        os.close(to_child)
        _, status = os.waitpid(child, 0)
    if status != 0:
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError("the network inside a new namespace could not be configured")
    return descriptors


def _wire_outside(request: dict[str, Any], namespace: int) -> None:
    netlink = Netlink()
    try:
        name = request["interface"]
        netlink.create_veth(name, INSIDE, namespace, int(request["mtu"]))
        _disable_ipv6(name)
        netlink.link_up(name)
        netlink.add_address(name, IPv4Address(request["gateway"]), IPv4Address(request["address"]))
    finally:
        netlink.close()


def _live_inside(request: dict[str, Any], to_agent: int, from_agent: int) -> int:
    """What the child does; returns its exit status."""
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        os.write(to_agent, b"1")
        if not os.read(from_agent, 1):
            return 1
        # Only root of the namespace may change its network settings below /proc.
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        netlink = Netlink()
        netlink.link_up("lo")
        if request:
            _disable_ipv6(INSIDE)
            netlink.link_up(INSIDE)
            gateway = IPv4Address(request["gateway"])
            netlink.add_address(INSIDE, IPv4Address(request["address"]), gateway)
            netlink.add_default_route(gateway, INSIDE)
    except OSError:
        return 1
    return 0


def _disable_ipv6(interface: str) -> None:
    # Link-local addresses would come up by themselves. No file: the kernel has no IPv6.
    try:
        Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6").write_text("1")
    except FileNotFoundError:
        pass


if __name__ == "__main__":
    main()
