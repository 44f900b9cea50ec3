from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intermodal.scheduling.autoscaler import Load, desired_containers, most_useful
from modal._wire.messages.function import Scaling


def load(queued: int = 0, running: int = 0, containers: int = 0, **more: Any) -> Load:
    values: dict[str, Any] = {
        "slots": 1, "run_seconds": None, "start_seconds": None, "blocked": 0, "stuck_seconds": 0.0, "cores": 4,
    }  # fmt: skip
    return Load(queued, running, containers, **{**values, **more})


MEASURED = {"run_seconds": 1.0, "start_seconds": 0.1}


@pytest.mark.parametrize(
    ("given_load", "wanted"),
    [
        (load(), 0),
        (load(1), 1),
        (load(1000), 4),  # a first wave
        (load(1000, slots=500), 2),
        (load(10, **MEASURED), 10),
        (load(10, run_seconds=0.001, start_seconds=0.1), 1),
        (load(1000, run_seconds=0.001, start_seconds=0.1), 10),  # 1 s of work in 0.1 s pieces
        (load(1000, containers=2, run_seconds=0.00001, start_seconds=0.1), 2),
        (load(998, 2, 2, start_seconds=0.1, stuck_seconds=0.05), 4),  # not known to be long yet
        (load(98, 2, 2, start_seconds=0.1, stuck_seconds=0.2, blocked=2), 100),  # all as long as that
        (load(9, 1, 1, run_seconds=0.001, start_seconds=0.1, stuck_seconds=5.0, blocked=1), 2),
        (load(6, 4, 4, run_seconds=0.001, start_seconds=0.1, stuck_seconds=5.0, blocked=4), 8),
        (load(0, 1, 5, **MEASURED), 1),
    ],
)
def test_demand_and_measurements_give_the_number(given_load: Load, wanted: int) -> None:
    assert desired_containers(given_load, Scaling()) == wanted


def test_limits_and_buffers_apply() -> None:
    assert desired_containers(load(), Scaling(min_containers=2, buffer_containers=1)) == 3
    assert desired_containers(load(10, **MEASURED), Scaling(max_containers=3, buffer_containers=5)) == 3
    assert desired_containers(load(10, **MEASURED), Scaling(buffer_containers=5)) == 15
    assert desired_containers(load(10, **MEASURED), Scaling(factor=0.5)) == 5


COUNTS = st.integers(0, 10_000)
SECONDS = st.none() | st.floats(0, 1000)


@given(
    st.builds(
        Load, COUNTS, COUNTS, st.integers(0, 100), st.integers(1, 100), SECONDS, SECONDS,
        st.just(0), st.floats(0, 1000), st.integers(1, 64),
    ),
    st.integers(0, 20),
    st.none() | st.integers(1, 50),
)  # fmt: skip
def test_the_number_is_always_within_bounds(some: Load, least: int, most: int | None) -> None:
    wanted = desired_containers(some, Scaling(min_containers=least, max_containers=most))
    assert most is None or wanted <= most
    assert wanted >= (least if most is None else min(least, most))
    assert wanted <= max(least, some.containers, most_useful(some, Scaling()))
    if some.queued and not some.containers:
        assert wanted >= 1
