from __future__ import annotations

import builtins
import dataclasses
import math
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal import _serialization
from modal._serialization import deserialize, deserialize_failure, serialize, serialize_failure, serialize_function
from modal.exception import DeserializationError, RemoteError, SerializationError

SRC = str(Path(__file__).resolve().parents[2] / "src")
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.frozensets(st.integers())
    ),
    max_leaves=20,
)


@dataclasses.dataclass
class Point:
    x: int
    y: int


class NeedsTwo(Exception):
    def __init__(self, code: int, *, detail: str):
        super().__init__(f"code {code}: {detail}")
        self.code = code
        self.detail = detail


class HoldsLock(Exception):
    def __init__(self, message: str):
        super().__init__(message, threading.Lock())
        self.lock = threading.Lock()
        self.kept = [1, 2]


class BrokenStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class BrokenReduce(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit("reduce")


class Ending(BaseException):
    pass


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


def sent(exc: BaseException) -> BaseException:
    return deserialize_failure(serialize_failure(raised(exc)))


@given(PLAIN)
def test_values_come_back_equal(value: object) -> None:
    assert deserialize(serialize(value)) == value


def test_a_view_into_a_larger_buffer_can_be_read() -> None:
    data = serialize(Point(1, 2))
    assert deserialize(memoryview(b"xx" + data)[2:]) == Point(1, 2)


def test_closures_and_lambdas_travel_by_value() -> None:
    factor = 3
    assert deserialize(serialize(lambda x: x * factor))(5) == 15


def test_arrays_are_copied_once_and_stay_writable() -> None:
    data = bytearray(b"abc" * 1000)
    copy = deserialize(serialize(pickle.PickleBuffer(data)))
    copy[0] = 1
    assert data[0] == ord("a")


@pytest.mark.parametrize("value", [threading.Lock(), (x for x in ()), [{"a": threading.Lock()}]])
def test_what_cannot_be_pickled_is_one_sentence_that_names_the_type(value: object) -> None:
    with pytest.raises(SerializationError, match=rf"type \w+\.{type(value).__name__} cannot be pickled") as caught:
        serialize(value)
    assert "\n" not in str(caught.value)


def test_something_nested_too_deeply_is_a_serialization_error() -> None:
    deep: list[Any] = []
    for _ in range(1_000_00):
        deep = [deep]
    with pytest.raises(SerializationError, match="nested too deeply"):
        serialize(deep)
    while deep:
        deep = deep.pop()


@pytest.mark.parametrize("name", [b"pathlib._yet_to_come\nPath", b"pathlib\nNoSuchPath"])
def test_a_clash_of_python_versions_names_both(name: bytes) -> None:
    broken = bytes((1, 3, 8)) + b"\x80\x05c" + name + b"\n."
    with pytest.raises(DeserializationError, match=rf"Python 3\.8 .* Python 3\.{sys.version_info[1]}"):
        deserialize(broken)


@pytest.mark.parametrize("tag", [_serialization.TAG, bytes((1, 3, 8))])
def test_a_missing_module_is_the_reason_whatever_the_versions(tag: bytes) -> None:
    with pytest.raises(DeserializationError, match="since the module 'no_such_module' is not installed here") as caught:
        deserialize(tag + b"cno_such_module\nThing\n.")
    assert "version" not in str(caught.value)


def test_a_missing_module_of_python_is_one_of_another_version() -> None:
    with pytest.raises(DeserializationError, match="may come from another version of Python"):
        deserialize(serialize(None)[:3] + b"cpathlib._yet_to_come\nPath\n.")


@given(st.binary(max_size=80))
def test_garbage_is_a_deserialization_error(data: bytes) -> None:
    for read in (deserialize_failure, lambda data: deserialize(b"\x00" + data)):
        with pytest.raises(DeserializationError):
            read(data)


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_a_damaged_failure_is_an_exception_or_a_deserialization_error(position: int, byte: int) -> None:
    data = bytearray(serialize_failure(raised(ValueError("x"))))
    data[position % len(data)] = byte
    try:
        assert isinstance(deserialize_failure(data), BaseException)
    except DeserializationError:
        return


def test_a_failure_whose_frame_table_refers_to_code_is_refused() -> None:
    with pytest.raises(DeserializationError, match=r"refers to os\.system"):
        deserialize_failure(bytes((2, 3, 11)) + b"cos\nsystem\n(S'true'\ntR.")


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("plain", 3),
        KeyError("key"),
        FileNotFoundError(2, "No such file", "/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(4),
        ImportError("m", name="n", path="p"),
        Ending("over"),
    ],
)
def test_an_exception_keeps_its_class_args_and_text(exc: BaseException) -> None:
    copy = sent(exc)
    assert type(copy) is type(exc)
    assert copy.args == exc.args
    assert str(copy) == str(exc)
    assert vars(copy) == vars(exc)


def test_c_level_state_is_kept() -> None:
    copy = sent(FileNotFoundError(2, "No such file", "/x"))
    assert isinstance(copy, FileNotFoundError)
    assert copy.filename == "/x"
    assert copy.errno == 2


def test_an_exception_whose_init_takes_other_arguments_keeps_its_attributes() -> None:
    copy = sent(NeedsTwo(7, detail="late"))
    assert isinstance(copy, NeedsTwo)
    assert (copy.code, copy.detail, str(copy)) == (7, "late", "code 7: late")


def test_attributes_that_cannot_be_pickled_are_left_out() -> None:
    copy = sent(HoldsLock("held"))
    assert isinstance(copy, HoldsLock)
    assert copy.kept == [1, 2]
    assert not hasattr(copy, "lock")
    assert copy.args[0] == "held"
    assert "lock" in copy.args[1]


def test_broken_exceptions_still_arrive() -> None:
    assert type(sent(BrokenStr("x"))) is BrokenStr
    assert isinstance(sent(BrokenReduce("x")), BrokenReduce)


def test_an_exception_class_made_in_a_function_arrives_with_its_name() -> None:
    class Local(Exception):
        pass

    copy = sent(Local("here"))
    assert type(copy).__name__ == "Local"
    assert str(copy) == "here"


def test_cause_context_suppression_and_notes_are_kept() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as exc:
        exc.__notes__ = ["a note"]  # type: ignore[attr-defined]
        copy = deserialize_failure(serialize_failure(exc))
    assert isinstance(copy.__cause__, KeyError)
    assert copy.__context__ is copy.__cause__
    assert copy.__suppress_context__
    assert copy.__cause__.__traceback__ is not None
    assert copy.__notes__ == ["a note"]  # type: ignore[attr-defined]


def test_context_without_cause_and_from_none() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer") from None
    except ValueError as exc:
        copy = deserialize_failure(serialize_failure(exc))
    assert copy.__cause__ is None
    assert isinstance(copy.__context__, KeyError)
    assert copy.__suppress_context__


def test_a_cycle_of_causes_does_not_hang() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    copy = deserialize_failure(serialize_failure(one))
    assert copy.__cause__ is not None
    assert copy.__cause__.__cause__ is copy


def test_exception_groups_keep_their_members_and_their_tracebacks() -> None:
    group = builtins.ExceptionGroup(
        "several", [raised(ValueError("a")), builtins.ExceptionGroup("in", [raised(NeedsTwo(1, detail="b"))])]
    )
    copy = sent(group)
    assert type(copy) is builtins.ExceptionGroup
    assert str(copy) == "several (2 sub-exceptions)"
    first, second = copy.exceptions
    assert str(first) == "a"
    assert first.__traceback__ is not None
    assert isinstance(second, builtins.ExceptionGroup)
    assert isinstance(second.exceptions[0], NeedsTwo)


def test_a_class_that_is_not_here_becomes_a_remote_error_with_the_traceback_text(tmp_path: Path) -> None:
    (tmp_path / "faraway.py").write_text("class Odd(Exception): pass\ndef f():\n    raise Odd('strange')\n")
    code = (
        "import sys, faraway\nfrom modal._serialization import serialize_failure\n"
        "try: faraway.f()\nexcept Exception as e: sys.stdout.buffer.write(serialize_failure(e))"
    )
    env = {"PYTHONPATH": f"{SRC}:{tmp_path}"}
    data = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout
    copy = deserialize_failure(data)
    assert type(copy) is RemoteError
    assert str(copy) == "faraway.Odd: strange"
    assert copy.remote_type == "faraway.Odd"  # type: ignore[attr-defined]
    assert "raise Odd('strange')" in copy.remote_traceback  # type: ignore[attr-defined]
    again = deserialize_failure(serialize_failure(copy))
    assert again.remote_type == "faraway.Odd"  # type: ignore[attr-defined]


def test_names_of_the_script_resolve_between_main_and_its_stem(tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    script.write_text(
        "import subprocess, sys\n"
        "class Point:\n    def __init__(self, x): self.x = x\n"
        "class Odd(Exception): pass\n"
        "from modal._serialization import *\n"
        "if __name__ == '__main__':\n"
        "    child = 'import sys, app; sys.modules[\"__main__\"] = app\\n'\\\n"
        "        'from modal._serialization import *\\n'\\\n"
        "        'p = deserialize(sys.stdin.buffer.read()); assert type(p) is app.Point\\n'\\\n"
        "        'try: raise app.Odd(p)\\n'\\\n"
        "        'except Exception as e: sys.stdout.buffer.write(serialize_failure(e))'\n"
        "    out = subprocess.run([sys.executable, '-c', child], input=serialize(Point(5)), capture_output=True)\n"
        "    print(out.stderr.decode())\n"
        "    exc = deserialize_failure(out.stdout)\n"
        "    assert type(exc) is Odd and type(exc.args[0]) is Point and exc.args[0].x == 5\n"
        "    assert 'app' not in sys.modules\n"
        "    print('fine')\n"
    )
    env = {"PYTHONPATH": f"{SRC}:{tmp_path}"}
    result = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True)
    assert result.stdout.strip() == "fine", result.stdout + result.stderr


def test_classes_of_a_nameless_main_travel_by_value() -> None:
    vendor = str(Path(pytest.importorskip("cloudpickle").__file__).parents[1])
    code = (
        "import sys\nfrom modal._serialization import serialize\n"
        "class P: x = 4\n"
        "sys.stdout.buffer.write(serialize(P()))"
    )
    env = {"PYTHONPATH": f"{SRC}:{vendor}"}
    data = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout
    assert deserialize(data).x == 4


def test_main_by_value_needs_no_module_on_the_other_side(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    cls = type("Fresh", (), {"__module__": "__main__", "x": 1})
    monkeypatch.setattr(main, "Fresh", cls, raising=False)
    data = serialize(cls(), main_by_value=True)
    monkeypatch.delattr(main, "Fresh")
    assert deserialize(data).x == 1


def test_a_function_travels_by_value_with_its_module_globals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usermod.py").write_text("BASE = 10\ndef add(x): return BASE + helper(x)\ndef helper(x): return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import usermod  # type: ignore[import-not-found]

    data = serialize_function(usermod.add)
    monkeypatch.delitem(sys.modules, "usermod")
    (tmp_path / "usermod.py").unlink()
    assert deserialize(data)(5) == 15


def test_nothing_large_is_imported_for_plain_values() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "from modal._serialization import *\n"
        "assert deserialize(serialize([1, {'a': 2.5}])) == [1, {'a': 2.5}]\n"
        "print(sorted({'asyncio', 'cloudpickle', 'dataclasses', 'traceback'} & (set(sys.modules) - before)))"
    )
    env = {"PYTHONPATH": SRC}
    result = subprocess.run([sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_floats_keep_their_oddities() -> None:
    assert math.isnan(deserialize(serialize(math.nan)))
    assert _serialization.serialize(-0.0) != _serialization.serialize(0.0)
