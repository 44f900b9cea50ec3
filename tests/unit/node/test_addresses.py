from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intermodal.model.errors import RuntimeFailure
from intermodal.node.network.addresses import CANDIDATES, AddressPool, choose_network, parse_routes

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_routes_are_read() -> None:
    assert parse_routes(ROUTES) == [IPv4Network("0.0.0.0/0"), IPv4Network("192.0.2.0/24")]


@given(st.sets(st.sampled_from(CANDIDATES), max_size=60), st.integers(0, 2**24))
def test_a_chosen_network_overlaps_no_route(taken: set[IPv4Network], seed: int) -> None:
    chosen = choose_network([IPv4Network("0.0.0.0/0"), *taken], seed)
    assert not any(chosen.overlaps(network) for network in taken)


def test_no_free_network_is_an_error() -> None:
    with pytest.raises(RuntimeFailure, match="No private network is free"):
        choose_network([IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12")], 1)


def test_addresses_are_unique_and_reused_late() -> None:
    pool = AddressPool(IPv4Network("10.9.0.0/29"))
    taken = [pool.take() for _ in range(5)]
    assert len(set(taken)) == 5
    assert pool.gateway == IPv4Address("10.9.0.1")
    assert not {pool.gateway, IPv4Address("10.9.0.0"), IPv4Address("10.9.0.7")} & set(taken)
    with pytest.raises(RuntimeFailure, match="in use"):
        pool.take()
    pool.give_back(taken[1])
    assert pool.take() == taken[1]
    pool.give_back(taken[3])
    pool.give_back(taken[4])
    assert pool.take() == taken[3]
