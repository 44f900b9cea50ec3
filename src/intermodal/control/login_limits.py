"""How often a login may fail: pure arithmetic, the clock is a parameter.

Secrets are too long to be guessed, so the limit is not what keeps a guesser out. It keeps the server and its log quiet
when a script repeats a wrong token for ever, and it is per address, so that nobody can lock out the owner of a token
whose id they know. Failures are counted twice: for the token id at that address, and for the address with all its ids,
more generously, since many people may share one.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

FREE_PER_TOKEN = 5  #: from this many failures of one token id at one address on it has to wait
FREE_PER_ADDRESS = 50  #: the same for an address
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  #: seconds; the wait doubles with each failure more
#: Seconds after which one failure is forgiven. A script that fails for ever and waits as it is told so never makes its
#: whole address wait.
FORGIVE_EVERY = 30.0
CAPACITY = 10_000  #: counters kept; the one that failed longest ago goes first

_Key = tuple[str, ...]


@dataclass(slots=True)
class _Counter:
    failures: float = 0.0
    last: float = 0.0
    blocked_until: float = 0.0


class LoginLimits:
    """Failed logins by address and token id. All times are seconds of one clock that does not jump."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._counters: OrderedDict[_Key, _Counter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counters)

    def wait(self, address: str, token_id: str, now: float) -> float:
        """Seconds until the next attempt is looked at; 0: at once."""
        counters = (self._counters.get(key) for key in _keys(address, token_id))
        return max(0.0, *(counter.blocked_until - now if counter is not None else 0.0 for counter in counters))

    def failed(self, address: str, token_id: str, now: float) -> None:
        """An attempt that was looked at failed."""
        for key, free in zip(_keys(address, token_id), (FREE_PER_ADDRESS, FREE_PER_TOKEN), strict=True):
            counter = self._counters.setdefault(key, _Counter())
            counter.failures = 1 + max(0.0, counter.failures - (now - counter.last) / FORGIVE_EVERY)
            counter.last = now
            excess = round(counter.failures) - free
            if excess >= 0:
                counter.blocked_until = now + min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(excess, 30))
            self._counters.move_to_end(key)
        while len(self._counters) > self._capacity:
            self._counters.popitem(last=False)

    def succeeded(self, address: str, token_id: str) -> None:
        """A login of this token worked: its failures at this address are forgiven."""
        self._counters.pop(_keys(address, token_id)[1], None)


def _keys(address: str, token_id: str) -> tuple[_Key, _Key]:
    network = network_of(address)
    return (network,), (network, token_id)


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the /64 that one machine can choose from freely."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return str(parsed)
