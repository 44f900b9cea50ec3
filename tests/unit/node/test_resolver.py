from __future__ import annotations

from pathlib import Path

from intermodal.node.network.firewall import ruleset
from intermodal.node.network.resolver import nameservers, resolver_file


def test_the_machines_servers_are_used(tmp_path: Path) -> None:
    (tmp_path / "host").write_text("search example.org\nnameserver 192.0.2.1\nnameserver 127.0.0.53\nnameserver ::1\n")
    text = resolver_file(tmp_path / "host", tmp_path / "none")
    assert text == "search example.org\nnameserver 192.0.2.1\n"
    assert nameservers(text) == ["192.0.2.1"]


def test_servers_behind_a_local_resolver_are_used(tmp_path: Path) -> None:
    (tmp_path / "host").write_text("nameserver 127.0.0.53\noptions edns0\n")
    (tmp_path / "upstream").write_text("nameserver 192.0.2.7\n")
    assert resolver_file(tmp_path / "host", tmp_path / "upstream") == "nameserver 192.0.2.7\n"


def test_nonsense_is_survived(tmp_path: Path) -> None:
    (tmp_path / "host").write_text("nameserver\nnameserver not-an-address\n")
    assert nameservers(resolver_file(tmp_path / "host", tmp_path / "none")) == []
    assert resolver_file(tmp_path / "none", tmp_path / "none") == ""


def test_rules_name_only_our_table_and_interfaces() -> None:
    from ipaddress import IPv4Network

    rules = ruleset("intermodal_1", "imc1", IPv4Network("10.1.0.0/16"), ["192.0.2.1"])
    assert 'iifname "imc1*" ip daddr { 192.0.2.1 } meta l4proto { tcp, udp } th dport 53 accept' in rules
    assert "dport" not in ruleset("intermodal_1", "imc1", IPv4Network("10.1.0.0/16"), [])
