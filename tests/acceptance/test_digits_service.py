"""The deployed example: a class, a schedule and a secret, used by a client that has none of its files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from acceptance_harness import EXAMPLES, Platform

pytestmark = pytest.mark.e2e

SERVICE, CLIENT = EXAMPLES / "digits_service.py", EXAMPLES / "digits_client.py"


@pytest.fixture
def digits(platform: Platform) -> Iterator[Platform]:
    """Nothing is deployed yet."""
    yield platform
    platform.modal("app", "stop", "digits")


def test_the_digits_service_reads_digits_for_those_who_have_the_key(digits: Platform) -> None:
    digits.modal("deploy", SERVICE, seconds=170).failed_with_one_sentence("digits-access")
    digits.modal("secret", "create", "digits-access", "ACCESS_KEY=open-sesame").succeeded()
    deployed = digits.modal("deploy", SERVICE, seconds=170).succeeded()
    assert re.search(r"retrain: .*next run \d{4}-\d\d-\d\d 03:00:00 UTC$", deployed.err, re.MULTILINE)
    [row] = [row for row in json.loads(digits.modal("app", "list", "--json").out) if row["state"] == "deployed"]
    assert (row["description"], row["version"]) == ("digits", "1")

    read = digits.python(CLIENT, "open-sesame").succeeded()
    first, second = read.out.splitlines()
    assert float(re.search(r"([\d.]+)%", first)[1]) > 90  # type: ignore[index]
    assert second == "These are 0 1 4"
    refused = digits.python(CLIENT, "friend")
    assert refused.code == 1
    assert "PermissionError: The access key is wrong." in refused.err

    trained = digits.modal("run", f"{SERVICE}::retrain", "--candidates", 2, seconds=170).succeeded()
    assert "The best of 2 models is right for 9" in trained.out
