"""Which private addresses containers get. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from intermodal.model.errors import RuntimeFailure

#: Private networks that are seldom used by anyone else come first.
CANDIDATES = tuple(
    [IPv4Network(f"10.{second}.0.0/16") for second in range(213, 255)]
    + [IPv4Network(f"172.{second}.0.0/16") for second in range(24, 32)]
    + [IPv4Network(f"10.{second}.0.0/16") for second in range(1, 213)]
)


def choose_network(taken: Iterable[IPv4Network], seed: int) -> IPv4Network:
    """Return a private network that overlaps none of `taken`; `seed` spreads several agents of one machine.

    Raises RuntimeFailure when there is none.
    """
    taken = [network for network in taken if network.prefixlen > 0]
    preferred = 42
    first = seed % preferred
    for candidate in CANDIDATES[first:preferred] + CANDIDATES[:first] + CANDIDATES[preferred:]:
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise RuntimeFailure("No private network is free for containers: routes of this machine cover all of 10.0.0.0/8.")


class AddressPool:
    """Hands out the addresses of one network, longest unused first. The first host address is the gateway's."""

    def __init__(self, network: IPv4Network) -> None:
        self.network = network
        self.gateway = network[1]
        self._used: set[int] = set()
        self._last = 1

    def take(self) -> IPv4Address:
        """Return an address that is not in use. Raises RuntimeFailure when all are."""
        size = self.network.num_addresses
        for step in range(1, size):
            offset = (self._last + step) % size
            if 1 < offset < size - 1 and offset not in self._used:
                self._used.add(offset)
                self._last = offset
                return self.network[offset]
        raise RuntimeFailure(f"All addresses of {self.network} are in use by containers.")

    def give_back(self, address: IPv4Address) -> None:
        self._used.discard(int(address) - int(self.network.network_address))


def parse_routes(text: str) -> list[IPv4Network]:
    """Read ``/proc/net/route``: the destinations of this machine's IPv4 routes."""
    networks = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(fields[column]), "little") for column in (1, 7))
        networks.append(IPv4Network((destination, bin(mask).count("1"))))
    return networks
