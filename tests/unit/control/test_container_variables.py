"""What containers get of secrets, and what secrets may hold."""

from __future__ import annotations

import pytest

from intermodal.control.container_variables import split
from intermodal.control.secret_service import check_variables
from modal.exception import InvalidError


def test_only_what_is_read_as_a_process_starts_is_given_at_the_start() -> None:
    early = {"LD_LIBRARY_PATH": "/x", "PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C", "MALLOC_ARENA_MAX": "1"}
    late = {"TOKEN": "t", "PYTHON_TOKEN": "t", "LD": "t", "PATH": "/bin", "MY_LD_X": "t", "TZ_DATABASE": "t"}
    assert split({**early, **late}, {"MODAL_IS_REMOTE": "1"}) == ({**early, "MODAL_IS_REMOTE": "1"}, late)


def test_a_secret_overrides_nothing_of_the_platform() -> None:
    secret = {"MODAL_TASK_ID": "mine", "INTERMODAL_SOCKET": "/tmp/x", "INTERMODAL_NEW": "x", "MODAL_TOKEN_ID": "ak"}
    assert split(secret, {"MODAL_TASK_ID": "ta-1"}) == ({"MODAL_TASK_ID": "ta-1"}, {"MODAL_TOKEN_ID": "ak"})


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"A": "hunter2" * 19_000}, "The value of A is too long"),
        ({"A" * 131_072: ""}, "is too long"),
        ({"A": "hunter2\0"}, "contains a zero byte"),
        ({"A B": "hunter2"}, "no name of an environment variable"),
        ({"": "hunter2"}, "no name of an environment variable"),
        ({f"A{n}": "hunter2" * 10_000 for n in range(4)}, "at most 256 KiB"),
        ({f"A{n}": '"' * 100_000 for n in range(2)}, "at most 256 KiB"),
    ],
)
def test_what_cannot_be_variables_is_refused_without_its_values(env: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidError, match=sentence) as caught:
        check_variables(env)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 300
    check_variables({"A": "x" * 130_000, "_b2": ""})
