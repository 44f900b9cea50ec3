"""`modal.Secret`: what its variables may be, and reading `.env` files."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from modal._objects.secret_env import find_dotenv, read_dotenv
from modal.exception import InvalidError, NotFoundError
from modal.secret import Secret


def test_a_dict_becomes_variables_and_none_is_left_out() -> None:
    assert Secret.from_dict({"A": "1", "B": None, "C_2": ""})._env == {"A": "1", "C_2": ""}
    assert Secret.from_dict()._env == {}


@pytest.mark.parametrize(
    "wrong", [{"A": 1}, {"1A": "x"}, {"A-B": "x"}, {"": "x"}, {3: "x"}, {"A": "x\0y"}, {"A=": "x"}, ["A"], "A=b"]
)
def test_a_bad_name_or_value_is_an_error_without_the_value(wrong) -> None:
    with pytest.raises(InvalidError) as caught:
        Secret.from_dict(wrong)
    assert "x\0y" not in str(caught.value)


def test_local_variables_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2_TEST", "value")
    monkeypatch.delenv("D2_MISSING", raising=False)
    assert Secret.from_local_environ(["D2_TEST"])._env == {"D2_TEST": "value"}
    with pytest.raises(InvalidError, match="D2_MISSING is not set"):
        Secret.from_local_environ(["D2_TEST", "D2_MISSING"])
    with pytest.raises(InvalidError, match="list of names"):
        Secret.from_local_environ("D2_TEST")  # type: ignore[arg-type]


def test_a_secret_never_shows_its_values() -> None:
    assert "hunter2" not in repr(Secret.from_dict({"PASSWORD": "hunter2"}))


def test_a_dotenv_file_is_found_in_a_directory_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    script = deep / "script.py"
    script.write_text("")
    assert find_dotenv(script, ".env") == tmp_path / ".env"
    assert find_dotenv(deep, ".env") == tmp_path / ".env"
    assert find_dotenv(tmp_path / ".env", ".env") == tmp_path / ".env"
    monkeypatch.chdir(deep)
    assert Secret.from_dotenv()._env == {"A": "1"}
    (deep / ".env-dev").write_text("B=2\n")
    assert Secret.from_dotenv(str(script), filename=".env-dev")._env == {"B": "2"}
    with pytest.raises(NotFoundError, match=r"to look for '\.env' from"):
        Secret.from_dotenv(deep / "no-such-place")
    with pytest.raises(NotFoundError, match="no-such-file"):
        Secret.from_dotenv(filename="no-such-file")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB=2", {"A": "1", "B": "2"}),
        ("# note\n\n  A = 1  # why\r\nB=x#y\n", {"A": "1", "B": "x#y"}),
        ("export A=1", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A", {}),
        ("A='$x # not \\n a comment'", {"A": "$x # not \\n a comment"}),
        ('A="two\nlines\\n\\"quoted\\""', {"A": 'two\nlines\n"quoted"'}),
        ("A=1\nB=${A}2\nC='${A}'", {"A": "1", "B": "12", "C": "${A}"}),
        ("A=${D2_UNSET:-fallback}", {"A": "fallback"}),
        ("A=${D2_UNSET}", {"A": ""}),
        ('A="x" # comment\nB=1', {"A": "x", "B": "1"}),
        ("\ufeffA=1", {"A": "1"}),
        ("A=a=b", {"A": "a=b"}),
        ('A="C:\\Users\\x41 \\\\ \\$"', {"A": "C:\\Users\\x41 \\ \\$"}),
        (
            "COLOUR=#fff\nA= # note\nB=x # note\nC=x#y # z\nD=#a #b",
            {"COLOUR": "#fff", "A": "", "B": "x", "C": "x#y", "D": "#a"},
        ),
        ("A=\"\"\nB=''\nC=' x '", {"A": "", "B": "", "C": " x "}),
        ("A=\\n ${\nB=$HOME", {"A": "\\n ${", "B": "$HOME"}),
        ("A=1\nA=2\nB=${A}", {"A": "2", "B": "2"}),
        ('export  A = "1" \r\n\texport B=2\r\n', {"A": "1", "B": "2"}),
        ('A=grüße 🎉\nB="\t"', {"A": "grüße 🎉", "B": "\t"}),
        ("", {}),
    ],
)
def test_dotenv_lines_are_understood(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    path = tmp_path / ".env"
    path.write_bytes(text.encode())
    assert read_dotenv(path) == expected


@pytest.mark.parametrize(
    ("text", "line"), [("A=1\nnot a line\n", 2), ("A='it''s'", 1), ('A="x" y', 1), ("=x", 1), ("A='open", 1)]
)
def test_a_line_that_is_none_is_an_error_that_names_it(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / ".env"
    path.write_text(text)
    with pytest.raises(InvalidError, match=f"line {line}"):
        read_dotenv(path)


def test_a_secret_by_name_is_checked_where_it_is_written() -> None:
    for wrong in ("", None, 3):
        with pytest.raises(InvalidError, match="takes a name"):
            Secret.from_name(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="required_keys"):
        Secret.from_name("x", required_keys="KEY")  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="environment_name"):
        Secret.from_name("x", environment_name=3)  # type: ignore[arg-type]
    assert repr(Secret.from_name("x")) == "modal.Secret.from_name('x')"


def test_the_values_of_a_secret_do_not_travel_with_pickled_code() -> None:
    import cloudpickle

    secret = Secret.from_dict({"PASSWORD": "hunter2"})
    pickled = cloudpickle.dumps(lambda: secret)
    assert b"hunter2" not in pickled
    assert repr(pickle.loads(pickled)()) == repr(secret)
    named = pickle.loads(pickle.dumps(Secret.from_name("x", required_keys=["A"])))
    assert named._named.required_keys == ["A"]
