"""The network of a container: a namespace of its own, and the files in /etc that describe it."""

from __future__ import annotations

import logging
from pathlib import Path

from intermodal.node.container import Container
from intermodal.node.hooks.interface import Hook
from intermodal.node.layout import NodeLayout
from intermodal.node.network.addresses import AddressPool, choose_network, parse_routes
from intermodal.node.network.firewall import Firewall
from intermodal.node.network.namespaces import NamespaceMaker, NamespacePool, Namespaces
from intermodal.node.network.resolver import nameservers, resolver_file
from intermodal.runtimes.interface import BindMount

log = logging.getLogger(__name__)

HOSTNAME = "modal"
_ETHERNET_MTU = 1500


class NetworkHook(Hook):
    """Sets `container.netns` and `userns`, unless the network is blocked: then the runtime makes an empty one."""

    def __init__(self, layout: NodeLayout, maker: NamespaceMaker, pool_size: int) -> None:
        self._layout = layout
        self._maker = maker
        self._pool_size = pool_size
        self._pool: NamespacePool | None = None
        self._firewall: Firewall | None = None
        self._resolver = ""
        self._taken: dict[str, Namespaces] = {}

    async def open(self) -> None:
        self._resolver = resolver_file()
        servers = nameservers(self._resolver)
        if not servers:
            log.warning("No name server of this machine can be reached from containers; see /etc/resolv.conf")
        network = choose_network(parse_routes(Path("/proc/net/route").read_text()), seed=int(self._layout.key, 16))
        addresses = AddressPool(network)
        self._firewall = Firewall(f"intermodal_{self._layout.key}", self._layout.interface_prefix, network, servers)
        await self._firewall.open()
        self._pool = NamespacePool(
            self._maker, addresses, self._layout.interface_prefix, self._pool_size, default_mtu()
        )
        self._pool.open()

    async def prepare(self, container: Container) -> None:
        address = "127.0.1.1"
        if not container.spec.block_network:
            assert self._pool is not None
            namespaces = await self._pool.take()
            self._taken[container.id] = namespaces
            container.netns, container.userns = namespaces.network_path, namespaces.user_path
            address = str(namespaces.address)
        files = {
            "resolv.conf": "" if container.spec.block_network else self._resolver,
            "hosts": f"127.0.0.1\tlocalhost\n{address}\t{HOSTNAME}\n",
            "hostname": f"{HOSTNAME}\n",
        }
        etc = container.home / "etc"
        etc.mkdir(mode=0o755)
        for name, text in files.items():
            (etc / name).write_text(text)
            (etc / name).chmod(0o644)
            container.mounts.append(BindMount(etc / name, f"/etc/{name}"))

    async def release(self, container: Container) -> None:
        namespaces = self._taken.pop(container.id, None)
        if namespaces is not None:
            assert self._pool is not None
            self._pool.give_back(namespaces)

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
        self._maker.close()
        if self._firewall is not None:
            await self._firewall.close()


def default_mtu(routes: Path = Path("/proc/net/route"), devices: Path = Path("/sys/class/net")) -> int:
    """The largest packet of the interface that this machine reaches the world through, in bytes.

    Containers with a larger one would depend on routers that say so, which many networks filter out.
    """
    for line in routes.read_text().splitlines()[1:]:
        name, destination = line.split()[:2]
        if int(destination, 16) == 0:
            try:
                return int((devices / name / "mtu").read_text())
            except (OSError, ValueError):
                break
    return _ETHERNET_MTU
