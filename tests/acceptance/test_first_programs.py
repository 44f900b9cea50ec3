"""The examples run, and what they print goes where it should."""

from __future__ import annotations

import re

import pytest
from acceptance_harness import CONTROL_CODES, EXAMPLES, Platform

pytestmark = pytest.mark.e2e

HELLO = ["local:  144", "remote: 144", "map:    332833500"]


def test_hello_runs_here_in_a_container_and_over_a_thousand_inputs(platform: Platform) -> None:
    ran = platform.modal("run", EXAMPLES / "hello.py").succeeded()
    printed = ran.out.splitlines()
    assert [line for line in printed if not line.startswith("squaring")] == HELLO
    assert sorted(line for line in printed if line.startswith("squaring")) == [
        f"squaring {x}" for x in (0, 250, 500, 750)
    ]
    for x in (0, 250, 500, 750):
        assert f"a line on stderr for {x}\n" in ran.err
    assert "squaring" not in ran.err
    assert "square: 1,000 of 1,000 inputs done" in ran.err
    assert "Sending 1 local file" in ran.err
    assert re.search(r"^App ap-\w+ started: hello$", ran.err, re.MULTILINE)
    assert ran.err.endswith("App completed.\n")
    assert not CONTROL_CODES.search(ran.out + ran.err), "control codes where there is no terminal"


def test_quiet_shows_only_what_the_program_prints(platform: Platform) -> None:
    ran = platform.modal("run", "--quiet", EXAMPLES / "hello.py", "--count", 251).succeeded()
    assert [line for line in ran.out.splitlines() if not line.startswith("squaring")] == [*HELLO[:2], "map:    5239625"]
    assert sorted(ran.err.splitlines()) == ["a line on stderr for 0", "a line on stderr for 250"]


def test_the_digits_search_finds_the_best_of_four_settings(platform: Platform) -> None:
    ran = platform.modal("run", EXAMPLES / "digits_search.py", "--max-models", 4, seconds=170).succeeded()
    lines = ran.out.splitlines()
    assert lines[0] == "Cross-validating 4 settings on the digits data set."
    assert len(lines) == 6
    scores = [float(line.split("accuracy ")[1].split()[0]) for line in lines[1:5]]
    best = float(lines[5].rpartition(" ")[2])
    assert best == max(scores)
    assert 0.8 < best < 1.0
    assert "evaluate: 4 of 4 inputs done" in ran.err
