from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import modal
from modal._serialization import deserialize_failure, serialize_failure
from modal._tracebacks import frames_of, remote_traceback, without_sdk_frames

SRC = str(Path(__file__).resolve().parents[2] / "src")
FRAMES = [("<ta-1>:/root/app.py", 12, "outer", "inner(1)"), ("<ta-1>:/root/lib.py", 3, "inner", "raise ValueError(x)")]


def printed(exc: BaseException) -> str:
    return "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))


def test_remote_frames_print_after_the_local_ones_with_their_lines() -> None:
    def call_remote() -> None:
        raise ValueError("x").with_traceback(remote_traceback(FRAMES))

    with pytest.raises(ValueError, match="x") as caught:
        call_remote()
    text = printed(caught.value)
    local, outer, inner = (text.index(part) for part in ("in call_remote", "line 12, in outer", "line 3, in inner"))
    assert local < outer < inner
    assert "    inner(1)\n" in text
    assert "    raise ValueError(x)\n" in text
    assert "_get_frame" not in text


def test_frames_of_a_second_hop_keep_their_origin() -> None:
    exc = ValueError("x").with_traceback(remote_traceback(FRAMES))
    assert frames_of(exc.__traceback__, "ta-2") == FRAMES


def test_sdk_frames_are_left_out_unless_there_are_no_others() -> None:
    package = os.path.dirname(modal.__file__)
    frames = [(package + "/_sync.py", 1, "bridge", ""), ("/u/app.py", 2, "f", "x"), (package + "/_sync.py", 3, "g", "")]
    made = remote_traceback(frames)
    assert [name for _, _, name, _ in frames_of(made)] == ["f"]
    assert [name for _, _, name, _ in frames_of(without_sdk_frames(made))] == ["f"]
    alone = remote_traceback(frames[:1])
    assert [name for _, _, name, _ in frames_of(alone)] == ["bridge"]
    assert without_sdk_frames(alone) is alone
    assert without_sdk_frames(None) is None


def test_endless_recursion_is_cut_in_the_middle() -> None:
    frames = [(f"/u/{number}.py", 1, "f", "") for number in range(3000)]
    kept = frames_of(remote_traceback(frames))
    assert len(kept) == 1000
    assert (kept[0][0], kept[-1][0]) == ("/u/0.py", "/u/2999.py")


def test_a_recursion_error_travels() -> None:
    def endless(x: int) -> int:
        return endless(x + 1)

    with pytest.raises(RecursionError) as caught:
        endless(0)
    copy = deserialize_failure(serialize_failure(caught.value))
    assert isinstance(copy, RecursionError)
    assert "Previous line repeated" in printed(copy)


def test_a_local_file_of_the_same_name_is_not_overlaid(tmp_path: Path) -> None:
    file = tmp_path / "here.py"
    file.write_text("first = 1\n")
    exc = ValueError().with_traceback(remote_traceback([(str(file), 1, "f", "other = 2")]))
    assert "first = 1" in printed(exc)


UNCAUGHT = """
import sys
from modal._tracebacks import remote_traceback
def call():
    raise ValueError("x").with_traceback(remote_traceback([("<ta-1>:/root/a.py", 7, "deep", "do_it(now)")]))
call()
"""

SMOKE = r"""
import sys, traceback
from modal._serialization import *
from modal import exception
class Two(Exception):
    def __init__(self, a, *, b): super().__init__("%s %s" % (a, b)); self.a = a
def f():
    try: {}["k"]
    except KeyError as e: raise Two(1, b=2) from e
try: f()
except Two as e:
    e.__notes__ = ["noted"]
    data = serialize_failure(e)
c = deserialize_failure(data)
assert type(c) is Two and c.a == 1 and isinstance(c.__cause__, KeyError)
text = "".join(traceback.format_exception(type(c), c, c.__traceback__))
assert 'raise Two(1, b=2) from e' in text and '{}["k"]' in text and "direct cause" in text, text
if sys.version_info >= (3, 11): assert "noted" in text and "~~" not in text and "^^" not in text, text
assert deserialize(serialize({"a": (1, b"x")})) == {"a": (1, b"x")}
lam = deserialize(serialize(lambda x: x + 1))
assert lam(1) == 2
try: serialize(sys.stdin)
except exception.SerializationError: pass
else: raise AssertionError
for bad in (b"", b"\x01", b"\x02\x03\x0bzzz", bytes(40)):
    for g in (deserialize, deserialize_failure):
        try: g(bad)
        except exception.DeserializationError: pass
        else: raise AssertionError
print("fine")
"""


def interpreters() -> list[str]:
    found = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))
    wanted = [str(path) for path in found if path.parts[-3].split(".")[1] in ("9", "10", "11", "12", "13")]
    return [sys.executable, *wanted]


def vendor() -> str:
    return str(Path(pytest.importorskip("cloudpickle").__file__).parents[1])


@pytest.mark.parametrize("python", interpreters())
def test_an_uncaught_remote_failure_shows_its_source_lines_on_every_python(python: str) -> None:
    result = subprocess.run([python, "-c", UNCAUGHT], env={"PYTHONPATH": SRC}, capture_output=True, text=True)
    assert result.returncode == 1
    assert 'File "<ta-1>:/root/a.py", line 7, in deep\n    do_it(now)\nValueError: x' in result.stderr, result.stderr
    assert "in call" in result.stderr


@pytest.mark.parametrize("python", interpreters())
def test_serialization_works_on_every_python(python: str, tmp_path: Path) -> None:
    # Only cloudpickle: the rest of this environment is another Python's.
    (tmp_path / "cloudpickle").symlink_to(Path(vendor()) / "cloudpickle")
    (tmp_path / "smoke.py").write_text(SMOKE)
    env = {"PYTHONPATH": f"{SRC}:{tmp_path}"}
    result = subprocess.run([python, str(tmp_path / "smoke.py")], env=env, capture_output=True, text=True)
    assert result.stdout.strip() == "fine", result.stdout + result.stderr
