"""Execution parameters of `@app.function()` have ranges: checked, documented, and named in the error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import modal
from modal.exception import InvalidError

DOCUMENT = (Path(__file__).parents[3] / "docs/calls.md").read_text()

#: parameter -> allowed values at the ends of its range, values just outside of it
RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "timeout": ([1, 604_800], [0, 604_801, -1, 1.5, True, "1"]),
    "retries": ([0, 10], [-1, 11, 1.5, True, "1", {}]),
    "concurrency_limit": ([1, 100_000], [0, 100_001, -1, 1.5, True]),
    "allow_concurrent_inputs": ([1, 1_000], [0, 1_001, -1, 1.5, True]),
    "container_idle_timeout": ([1, 86_400], [0, 86_401, -1, 1.5, True]),
    "keep_warm": ([0, 10_000], [-1, 10_001, 1.5, True]),
    "max_inputs": ([1, 1_000_000_000], [0, 1_000_000_001, -1, 1.5, True]),
    "cpu": ([0.001, 1024], [0, -1, 1025, float("nan"), float("inf"), True, "1"]),
    "memory": ([1, 16_777_216], [0, -1, 16_777_217, 1.5, True]),
    "ephemeral_disk": ([1, 16_777_216], [0, -1, 16_777_217, 1.5, True]),
    "_experimental_buffer_containers": ([0, 10_000], [-1, 10_001, 1.5, True]),
    "_experimental_custom_scaling_factor": ([0, 1], [-0.1, 1.1, float("nan"), True]),
    "serialized": ([True, False], ["yes", 1, None]),
    "block_network": ([True, False], ["yes", 1, None]),
    "enable_memory_snapshot": ([True, False], ["yes", 1, None]),
}

#: the same for `modal.Retries`
RETRIES: dict[str, tuple[list[Any], list[Any]]] = {
    "max_retries": ([0, 10], [-1, 11, 1.5, True, None]),
    "backoff_coefficient": ([1.0, 10.0], [0.9, 10.1, float("nan"), True, None]),
    "initial_delay": ([0.0, 60.0], [-0.1, 60.1, float("inf"), True, None]),
    "max_delay": ([1.0, 60.0], [0.9, 60.1, True, None]),
}


@pytest.mark.parametrize("parameter", RANGES)
def test_values_outside_of_a_parameters_range_are_refused_by_its_name(parameter: str) -> None:
    allowed, refused = RANGES[parameter]
    for value in allowed:
        modal.App().function(**{parameter: value})
    for value in refused:
        with pytest.raises(InvalidError, match=rf"\b{parameter}\b.* (must|not)\b") as caught:
            modal.App().function(**{parameter: value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("parameter", RETRIES)
def test_a_retry_policy_over_a_limit_is_refused(parameter: str) -> None:
    allowed, refused = RETRIES[parameter]
    for value in allowed:
        modal.Retries(**{"max_retries": 1, parameter: value})
    for value in refused:
        with pytest.raises(InvalidError, match=rf"^Retries: {parameter} must be .* from "):
            modal.Retries(**{"max_retries": 1, parameter: value})


@pytest.mark.parametrize("parameter", [*RANGES, *RETRIES])
def test_every_range_is_documented(parameter: str) -> None:
    [row] = re.findall(rf"^\| `{parameter}` \|.*$", DOCUMENT, re.MULTILINE)
    ends = ({**RANGES, **RETRIES})[parameter][0]
    if isinstance(ends[0], bool):
        assert "True or False" in row
    else:
        low = 0 if parameter == "cpu" else ends[0]
        assert f"{low:,g}" in row if low < 1_000_000 else True
        assert f"{int(ends[1]):,}" in row


def test_parameters_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InvalidError, match=r"concurrency_limit \(2\) must be at least keep_warm \(3\)"):
        modal.App().function(keep_warm=3, concurrency_limit=2)
    with pytest.raises(InvalidError, match=r"cpu's limit \(1\.0\) must be at least its request \(2\.0\)"):
        modal.App().function(cpu=(2, 1))

    def raw(x: list[int]) -> list[int]:
        return x

    batched = modal.batched(max_batch_size=2, wait_ms=10)(raw)
    with pytest.raises(InvalidError, match=r"@modal\.batched and allow_concurrent_inputs"):
        modal.App().function(serialized=True, allow_concurrent_inputs=2)(batched)
