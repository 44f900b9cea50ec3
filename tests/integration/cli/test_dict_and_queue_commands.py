"""`modal dict` and `modal queue` against a real server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from real_server import RealServer

import modal


class Rec:
    """A class that the command cannot find."""


NO_REC = "<cannot be unpickled here: ModuleNotFoundError: No module named 'test_dict_and_queue_commands'>"
MODAL = Path(sys.executable).parent / "modal"


def cli(*args: object, answer: str = "", code: int = 0) -> str:
    """What `modal` prints, on stdout when it succeeds and on stderr else."""
    command = [str(MODAL), *map(str, args)]
    done = subprocess.run(command, input=answer, capture_output=True, text=True, env=os.environ, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def at_terminal(*args: object, answer: str, code: int = 0) -> str:
    """What `modal` says to a person who is asked and answers."""
    master, slave = pty.openpty()
    command = [str(MODAL), *map(str, args)]
    with subprocess.Popen(command, env=os.environ, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(master, 1024)
        os.write(master, answer.encode())
        with contextlib.suppress(OSError):  # the terminal's other end is closed as the command ends
            while chunk := os.read(master, 1024):
                said += chunk
    os.close(master)
    assert process.returncode == code, said
    return said.decode()


@pytest.mark.usefixtures("real_server")
def test_a_dict_from_making_to_deleting() -> None:
    assert "Made the dict 'facts'" in cli("dict", "create", "facts")
    assert "exists already" in cli("dict", "create", "facts")
    facts = modal.Dict.lookup("facts")
    for number in range(30):
        facts[f"key-{number}"] = number
    assert cli("dict", "get", "facts", "key-7") == "7\n"
    assert "no key 'key-99'" in cli("dict", "get", "facts", "key-99", code=1)
    assert cli("dict", "items", "facts", 2, "--repr").splitlines()[1:] == [
        "'key-0'  0",
        "'key-1'  1",
        "… and more: 30 entries in all.",
    ]
    assert len(json.loads(cli("dict", "items", "facts", "--all", "--json"))) == 30
    assert json.loads(cli("dict", "items", "facts", 1, "--json")) == [{"key": "key-0", "value": 0}]
    [listed] = [one for one in json.loads(cli("dict", "list", "--json")) if one["name"] == "facts"]
    assert set(listed) == {"name", "created_at"}
    assert "facts" in cli("dict", "list")
    assert "add --yes" in cli("dict", "clear", "facts", answer="y\n", code=2)
    assert facts.len() == 30
    assert "Nothing was changed." in at_terminal("dict", "clear", "facts", answer="n\n", code=1)
    assert facts.len() == 30
    assert "Cleared" in at_terminal("dict", "clear", "facts", answer="y\n")
    assert facts.len() == 0
    assert "Deleted the dict 'facts'" in cli("dict", "delete", "facts", "--yes")
    assert "There is no dict 'facts'" in cli("dict", "delete", "facts", "--yes", code=1)
    assert "facts" not in cli("dict", "list")


@pytest.mark.usefixtures("real_server")
def test_a_queue_from_making_to_deleting() -> None:
    assert "Made the queue 'work'" in cli("queue", "create", "work")
    work = modal.Queue.lookup("work")
    work.put_many(["a", "b", "c"])
    work.put_many([1, 2], partition="p")
    assert cli("queue", "peek", "work") == "a\n"
    assert cli("queue", "peek", "work", 2) == "a\nb\n"
    assert cli("queue", "peek", "work", 5, "-p", "p") == "1\n2\n"
    assert cli("queue", "len", "work") == "3\n"
    assert cli("queue", "len", "work", "--partition", "p") == "2\n"
    assert cli("queue", "len", "work", "--total") == "5\n"
    assert "work" in cli("queue", "list")
    cli("queue", "clear", "work", "-p", "p", "-y")
    assert cli("queue", "len", "work", "-t") == "3\n"
    cli("queue", "clear", "work", "--all", "--yes")
    assert cli("queue", "len", "work", "-t") == "0\n"
    assert "not both" in cli("queue", "len", "work", "-t", "-p", "x", code=2)
    cli("queue", "delete", "work", "--yes")
    assert "There is no queue 'work'" in cli("queue", "len", "work", code=1)


@pytest.mark.usefixtures("real_server")
@pytest.mark.parametrize(
    ("group", "word"),
    [("dict", "dict"), ("queue", "queue"), ("volume", "volume"), ("nfs", "network file system")],
)
def test_deleting_what_is_not_there_says_so_and_no_more(group: str, word: str) -> None:
    sentence = f"Error: There is no {word} 'none' in the environment 'main'.\n"
    assert cli(group, "delete", "none", "--yes", code=1) == sentence
    assert cli(group, "delete", "none", code=1) == sentence  # nobody is asked about it
    assert "There is no environment 'nowhere'" in cli(group, "delete", "none", "-y", "--env", "nowhere", code=1)


@pytest.mark.usefixtures("real_server")
@pytest.mark.parametrize(
    ("group", "verb", "args", "word"),
    [
        ("dict", "clear", ["--yes"], "dict"),
        ("dict", "get", ["key"], "dict"),
        ("queue", "clear", ["--yes"], "queue"),
        ("queue", "clear", [], "queue"),  # nobody is asked about it
        ("volume", "get", ["/x"], "volume"),
        ("nfs", "ls", [], "network file system"),
    ],
)
def test_looking_for_what_is_not_there_advises_nobody_to_make_it(
    group: str, verb: str, args: list[str], word: str
) -> None:
    sentence = f"Error: There is no {word} 'none' in the environment 'main'.\n"
    assert cli(group, verb, "none", *args, code=1) == sentence
    assert "There is no environment 'nowhere'" in cli(group, verb, "none", *args, "--env", "nowhere", code=1)


@pytest.mark.usefixtures("real_server")
@pytest.mark.parametrize(("group", "word"), [("volume", "volume"), ("nfs", "network file system")])
def test_making_one_says_what_it_is(group: str, word: str) -> None:
    assert f"`modal {group} create made`" in cli(group, "put", "made", __file__, code=1)
    assert cli(group, "create", "made") == f"Made the {word} 'made'.\n"
    assert cli(group, "create", "made") == f"The {word} 'made' exists already.\n"
    cli(group, "delete", "made", "--yes")


@pytest.mark.usefixtures("real_server")
def test_one_entry_that_cannot_be_unpickled_hides_no_other() -> None:
    mixed = modal.Dict.lookup("mixed", create_if_missing=True)
    mixed["a"], mixed["rec"], mixed[Rec()], mixed["z"] = 1, Rec(), 2, "last"
    for options, plain in (["--all"], ("a", "rec", "z", "last")), (["-r"], ("'a'", "'rec'", "'z'", "'last'")):
        rows = [re.split(" {2,}", line) for line in cli("dict", "items", "mixed", *options).splitlines()]
        a, rec, z, last = plain
        assert rows == [["Key", "Value"], [a, "1"], [rec, NO_REC], [NO_REC, "2"], [z, last]]
    assert [tuple(pair.values()) for pair in json.loads(cli("dict", "items", "mixed", "--json"))] == [
        ("a", 1),
        ("rec", NO_REC),
        (NO_REC, 2),
        ("z", "last"),
    ]
    # Whoever asks for this very value is told that there is none to be had.
    assert "cannot be unpickled here" in cli("dict", "get", "mixed", "rec", code=1)


@pytest.mark.usefixtures("real_server")
def test_one_item_that_cannot_be_unpickled_does_not_stop_a_peek() -> None:
    mixed = modal.Queue.lookup("mixed", create_if_missing=True)
    mixed.put_many(["a", Rec(), "b\n\x1b[2J", "\ud800"])
    shown = ["a", NO_REC, r"b\n\x1b[2J", r"\ud800"]
    assert cli("queue", "peek", "mixed", 100).splitlines() == shown
    assert cli("queue", "peek", "mixed", 2).splitlines() == shown[:2]
    assert cli("queue", "peek", "mixed", "9" * 30).splitlines() == shown
    assert mixed.len() == 4


@pytest.mark.usefixtures("real_server")
def test_values_that_json_or_a_terminal_cannot_take() -> None:
    odd = modal.Dict.lookup("odd", create_if_missing=True)
    odd["keys"], odd["nan"], odd["half"], odd["red"] = {(1, 2): 3}, float("nan"), "x\ud800", "\x1b[31mred\n"
    printed = json.loads(cli("dict", "items", "odd", "--json"), parse_constant=lambda name: f"{name} is not JSON")
    assert {pair["key"]: pair["value"] for pair in printed} == {
        "keys": "{(1, 2): 3}",
        "nan": "nan",
        "half": "x\ud800",
        "red": "\x1b[31mred\n",
    }
    assert [re.split(" {2,}", line) for line in cli("dict", "items", "odd").splitlines()[1:]] == [
        ["keys", "{(1, 2): 3}"],
        ["nan", "nan"],
        ["half", r"x\ud800"],
        ["red", r"\x1b[31mred\n"],
    ]
    assert cli("dict", "get", "odd", "half") == "x\\ud800\n"
    assert cli("dict", "get", "odd", "red") == "\x1b[31mred\n\n"


@pytest.mark.usefixtures("real_server")
def test_a_number_that_is_none() -> None:
    cli("dict", "create", "numbers")
    cli("queue", "create", "numbers")
    assert "'abc' is not a whole number of at least 0." in cli("dict", "items", "numbers", "abc", code=2)
    assert "'0' is not a whole number of at least 1." in cli("queue", "peek", "numbers", 0, code=2)
    assert cli("dict", "items", "numbers", "9" * 30).split() == ["Key", "Value"]


def test_groups_without_a_command_print_their_help() -> None:
    for group in ("dict", "queue", "volume", "container"):
        assert cli(group, code=2) == cli(group, "--help")


def test_environments_and_bad_names(real_server: RealServer) -> None:
    cli("environment", "create", "aside")
    cli("dict", "create", "only-there", "--env", "aside")
    assert "only-there" in cli("dict", "list", "-e", "aside")
    assert "only-there" not in cli("dict", "list")
    assert "no environment 'nowhere'" in cli("queue", "create", "q", "--env", "nowhere", code=1)
    assert "1 to 64 letters" in cli("queue", "create", "a/b", code=1)
    assert "NAME" in cli("queue", "create", code=2)
