"""The packet filter around containers: out to the world by NAT, never to each other or to this machine's services."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

from intermodal.model.errors import MissingTool, RuntimeFailure
from intermodal.node.layout import INTERFACES

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class Firewall:
    """One nftables table, named for the agent, that holds every rule of ours."""

    def __init__(self, table: str, interface_prefix: str, network: IPv4Network, nameservers: Sequence[str]) -> None:
        """`interface_prefix` starts the name of each interface of a container, on the machine's side."""
        self._table = table
        self._rules = ruleset(table, interface_prefix, network, nameservers)

    async def open(self) -> None:
        """Install the rules, replacing those of an earlier agent, and let this machine forward packets."""
        if shutil.which("nft") is None:
            raise MissingTool("nft", "nftables", "connect containers to the network")
        await self._run(self._rules)
        if _FORWARDING.read_text().strip() == "0":
            _FORWARDING.write_text("1")

    async def close(self) -> None:
        """Remove the table. Idempotent. (Forwarding stays on: others may have come to need it.)"""
        if shutil.which("nft") is not None:
            await self._run(f"table inet {self._table}\ndelete table inet {self._table}\n")

    async def _run(self, rules: str) -> None:
        process = await asyncio.create_subprocess_exec(
            "nft", "-f", "-", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, errors = await process.communicate(rules.encode())
        if process.returncode != 0:
            reason = errors.decode(errors="replace").strip().splitlines()
            raise RuntimeFailure(
                f"nft refused the packet filter for containers: {reason[0] if reason else 'no reason'}."
            )


def ruleset(table: str, interface_prefix: str, network: IPv4Network, nameservers: Sequence[str]) -> str:
    """The rules, as `nft -f` reads them. Pure."""
    ours = f'"{interface_prefix}*"'
    resolver = ""
    if nameservers:
        addresses = "{ " + ", ".join(nameservers) + " }"
        # The machine's resolver may listen on one of its own addresses.
        resolver = f"iifname {ours} ip daddr {addresses} meta l4proto {{ tcp, udp }} th dport 53 accept"
    return f"""
table inet {table}
delete table inet {table}
table inet {table} {{
  chain from_containers_to_machine {{
    type filter hook input priority filter; policy accept;
    iifname {ours} ct state established,related accept
    {resolver}
    iifname {ours} drop
  }}
  chain through_machine {{
    type filter hook forward priority filter; policy accept;
    iifname {ours} ip saddr != {network} drop
    iifname {ours} meta nfproto ipv6 drop
    iifname {ours} oifname "{INTERFACES}*" drop
    iifname {ours} ip daddr 169.254.0.0/16 drop
    oifname {ours} ct state established,related accept
    oifname {ours} drop
  }}
  chain to_the_world {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {network} oifname != {ours} masquerade
  }}
}}
"""
