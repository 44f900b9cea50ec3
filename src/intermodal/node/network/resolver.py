"""Which name servers containers use. Pure, but for reading two files."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, ip_address
from pathlib import Path

HOST = Path("/etc/resolv.conf")
#: Where systemd-resolved lists the servers behind its own, which only listens on loopback.
UPSTREAM = Path("/run/systemd/resolve/resolv.conf")


def resolver_file(host: Path = HOST, upstream: Path = UPSTREAM) -> str:
    """Return a resolv.conf for containers: the machine's, without servers that only the machine itself can reach."""
    text = _read(host)
    if not nameservers(text):
        text = _read(upstream) or text
    kept = [line for line in text.splitlines() if not _is_loopback_server(line)]
    return "".join(line + "\n" for line in kept)


def nameservers(text: str) -> list[str]:
    """The IPv4 servers that a resolv.conf names, but for loopback ones."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 2 and fields[0] == "nameserver":
            try:
                address = IPv4Address(fields[1])
            except AddressValueError:
                continue
            if not address.is_loopback:
                found.append(str(address))
    return found


def _is_loopback_server(line: str) -> bool:
    fields = line.split()
    if len(fields) < 2 or fields[0] != "nameserver":
        return False
    try:
        return ip_address(fields[1].partition("%")[0]).is_loopback
    except ValueError:
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
