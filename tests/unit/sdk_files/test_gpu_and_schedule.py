"""GPU requests and schedules."""

from __future__ import annotations

import math

import pytest

from modal import gpu
from modal.exception import DeprecationError, InvalidError
from modal.gpu import gpu_requests, parse_gpu_config
from modal.schedule import Cron, Period


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("t4", gpu.T4()),
        ("L4", gpu.L4()),
        ("a100", gpu.A100()),
        ("A100-80GB", gpu.A100(size="80GB")),
        ("h100:8", gpu.H100(count=8)),
        ("a10g:4", gpu.A10G(count=4)),
        ("l40s", gpu.L40S()),
        (" any ", gpu.Any()),
        (gpu.L4(2), gpu.L4(count=2)),
        (None, None),
        (False, None),
    ],
)
def test_requests_are_understood(value, expected) -> None:
    assert parse_gpu_config(value) == expected


@pytest.mark.parametrize("value", ["", "rtx", "t4:", "t4:0", "t4:-1", "t4:x", "t4:1:2", "t4:²", 3, ["t4"], 1.0])
def test_a_bad_request_is_an_error(value) -> None:
    with pytest.raises(InvalidError):
        parse_gpu_config(value)


@pytest.mark.parametrize("make", [lambda: gpu.T4(0), lambda: gpu.A100(size="60GB"), lambda: gpu.H100(count=True)])
def test_a_bad_gpu_object_is_an_error(make) -> None:
    with pytest.raises(InvalidError):
        make()


def test_true_is_deprecated_for_any() -> None:
    with pytest.warns(DeprecationError):
        assert parse_gpu_config(True) == gpu.Any()


def test_alternatives_keep_their_order() -> None:
    assert gpu_requests(["h100", gpu.A100(size="80GB", count=2), None]) == ["H100", "A100-80GB:2"]
    assert gpu_requests("any") == ["ANY"]
    assert gpu_requests(None) == []
    assert {gpu.T4(), gpu.T4()} == {gpu.T4()}


@pytest.mark.parametrize(
    "text", ["* * * * *", "5 4 * * *", "0 9 * * 4", "*/15 0-6/2 1,15 jan-mar MON,fri", "0 0 31 12 7", "5/20 * * * *"]
)
def test_cron_expressions_are_accepted(text: str) -> None:
    assert Cron(text)._spec() == {"cron": text}
    assert Cron(text) == Cron(f" {text} ")


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a * * * *"]
    + ["5-1 * * * *", "*/0 * * * *", "*/90 * * * *", "0 0 31 2,4 *", "1, * * * *", "*-5 * * * *", "@daily", 5],
)
def test_a_bad_cron_expression_is_an_error(text) -> None:
    with pytest.raises(InvalidError):
        Cron(text)


def test_periods_add_up_their_parts() -> None:
    period = Period(days=1, seconds=math.pi)
    assert period._spec()["period"]["seconds"] == math.pi
    assert repr(period) == f"Period(days=1, seconds={math.pi!r})"
    assert period == Period(days=1, seconds=math.pi)
    assert period != Period(days=1)
    assert len({Period(days=1), Period(days=1), Cron("* * * * *")}) == 2


@pytest.mark.parametrize(
    "parts",
    [{}, {"days": -1}, {"days": 1.5}, {"hours": "1"}, {"seconds": math.nan}, {"seconds": math.inf}, {"days": True}]
    + [{"seconds": 0.5}, {"years": 1001}, {"weeks": 10**400}],
)
def test_a_bad_period_is_an_error(parts) -> None:
    with pytest.raises(InvalidError):
        Period(**parts)
