"""Failed logins make an address wait, and nobody else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from intermodal.control.login_limits import (
    FORGIVE_EVERY,
    FREE_PER_ADDRESS,
    FREE_PER_TOKEN,
    LONGEST_WAIT,
    LoginLimits,
    network_of,
)


def test_the_first_failures_cost_nothing_and_then_the_wait_doubles_up_to_its_limit() -> None:
    limits, waits = LoginLimits(), []
    for _ in range(20):
        limits.failed("10.0.0.1", "ak-1", 0.0)
        waits.append(limits.wait("10.0.0.1", "ak-1", 0.0))
    assert waits[: FREE_PER_TOKEN - 1] == [0.0] * (FREE_PER_TOKEN - 1)
    assert waits[FREE_PER_TOKEN - 1 : FREE_PER_TOKEN + 2] == [1.0, 2.0, 4.0]
    assert waits[-1] == LONGEST_WAIT
    assert limits.wait("10.0.0.1", "ak-1", LONGEST_WAIT) == 0.0


def test_a_script_that_fails_for_ever_does_not_make_its_neighbours_wait() -> None:
    limits, now = LoginLimits(), 0.0
    for _ in range(1_000):
        limits.failed("10.0.0.1", "ak-1", now)
        assert limits.wait("10.0.0.1", "ak-2", now) == 0.0
        now += limits.wait("10.0.0.1", "ak-1", now)
    assert now > 20_000  # it has waited, too


def test_the_token_from_elsewhere_and_another_token_from_there_do_not_wait() -> None:
    limits = LoginLimits()
    for _ in range(FREE_PER_TOKEN + 3):
        limits.failed("10.0.0.1", "ak-1", 0.0)
    assert limits.wait("10.0.0.1", "ak-1", 0.0) > 0
    assert limits.wait("10.0.0.2", "ak-1", 0.0) == 0
    assert limits.wait("10.0.0.1", "ak-2", 0.0) == 0


def test_an_address_that_tries_many_token_ids_waits_with_all_of_them() -> None:
    limits = LoginLimits()
    for number in range(FREE_PER_ADDRESS):
        limits.failed("10.0.0.1", f"ak-{number}", 0.0)
    assert limits.wait("10.0.0.1", "ak-new", 0.0) > 0
    assert limits.wait("10.0.0.2", "ak-new", 0.0) == 0


def test_success_and_time_forgive() -> None:
    limits = LoginLimits()
    for _ in range(FREE_PER_TOKEN - 1):
        limits.failed("10.0.0.1", "ak-1", 0.0)
    limits.succeeded("10.0.0.1", "ak-1")
    limits.failed("10.0.0.1", "ak-1", 1.0)
    assert limits.wait("10.0.0.1", "ak-1", 1.0) == 0
    for _ in range(FREE_PER_TOKEN + 1):
        limits.failed("10.0.0.1", "ak-1", 2.0)
    later = 2.0 + 10 * FORGIVE_EVERY
    limits.failed("10.0.0.1", "ak-1", later)
    assert limits.wait("10.0.0.1", "ak-1", later) == 0


def test_one_machine_has_one_address_however_it_is_written() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8:0:0:ffff::2") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1")
    assert network_of("container ta-1") == "container ta-1"


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.floats(0, 1e6)), max_size=300))
def test_memory_is_bounded_and_waits_are_too(failures: list[tuple[int, int, float]]) -> None:
    limits = LoginLimits(capacity=50)
    now = 0.0
    for host, token, pause in failures:
        now += pause
        limits.failed(f"10.0.{host // 256}.{host % 256}", f"ak-{token}", now)
        assert len(limits) <= 50
        assert 0 <= limits.wait(f"10.0.{host // 256}.{host % 256}", f"ak-{token}", now) <= LONGEST_WAIT
