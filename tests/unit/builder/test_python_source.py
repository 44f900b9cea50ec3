"""Which Pythons of the machine are used, and what of them is packed."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest

from intermodal.builder.python_source import Interpreter, candidates, find_interpreters, pack, shared_libraries


def executable(path: Path, text: str = "#!/bin/sh\nexit 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_places_are_searched_from_the_best_to_the_last_and_shims_never(tmp_path: Path) -> None:
    downloaded = executable(tmp_path / "cache" / "cpython-3.12.1-linux" / "bin" / "python3.12")
    managed = executable(tmp_path / ".local" / "share" / "uv" / "python" / "cpython-3.12.0" / "bin" / "python3.12")
    pyenv = executable(tmp_path / ".pyenv" / "versions" / "3.12.2" / "bin" / "python3.12")
    executable(tmp_path / ".pyenv" / "shims" / "python3.12")
    path = executable(tmp_path / "bin" / "python3.12")
    environ = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/.pyenv/shims:{tmp_path}/bin::/nowhere"}
    assert [found for found, _ in candidates(environ, tmp_path / "cache")] == [downloaded, managed, pyenv, path]


def test_what_does_not_answer_like_a_python_is_left_out(tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "python3.11")
    executable(tmp_path / "bin" / "python3.12", "#!/bin/sh\necho '{}'\n".replace("{}", "nonsense"))
    executable(tmp_path / "bin" / "python3.12-config")
    assert find_interpreters({"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin"}, tmp_path) == []


def test_a_version_is_asked_for_by_series_or_exactly() -> None:
    interpreter = Interpreter(Path("/p"), "3.11.7", Path("/"), Path("/lib"), None, "x")
    assert interpreter.series == "3.11"
    assert interpreter.answers("3.11")
    assert interpreter.answers("3.11.7")
    assert not interpreter.answers("3.1")
    assert not interpreter.answers("3.11.8")


def test_shared_libraries_of_a_program_are_named() -> None:
    libraries = shared_libraries([Path("/bin/sh")])
    assert "libc.so.6" in libraries
    assert libraries["libc.so.6"].exists()


def test_a_packed_python_holds_no_junk_and_no_path_of_the_machine(tmp_path: Path) -> None:
    prefix = tmp_path / "machine"
    stdlib = prefix / "lib" / "python3.11"
    for name in ("os.py", "test/x.py", "json/tests/x.py", "site-packages/mine.py", "EXTERNALLY-MANAGED", "turtle.py"):
        (stdlib / name).parent.mkdir(parents=True, exist_ok=True)
        (stdlib / name).write_text("x = 1\n")
    (stdlib / "_sysconfigdata__linux.py").write_text(f"prefix = '{prefix}/include'\n")
    real = Path(sys.executable).resolve()
    interpreter = Interpreter(real, "3.11.7", prefix, stdlib, None, "test")
    stage = tmp_path / "stage"
    stage.mkdir()
    libc = set(shared_libraries([real]))
    pack(interpreter, libc, stage, tmp_path / "python.tar")
    with tarfile.open(tmp_path / "python.tar") as tar:
        names = {name.removeprefix("usr/local/") for name in tar.getnames()}
        member = tar.extractfile("usr/local/lib/python3.11/_sysconfigdata__linux.py")
        assert member is not None
        assert member.read() == b"prefix = '/usr/local/include'\n"
        assert {entry.uid for entry in tar} == {0}
    assert {"bin/python", "bin/python3", "bin/python3.11", "bin/pip", "lib/python3.11/os.py"} <= names
    assert any(name.startswith("lib/python3.11/__pycache__/os.cpython") for name in names)
    junk = ("lib/python3.11/test", "lib/python3.11/json/tests", "mine.py", "EXTERNALLY", "turtle.py")
    assert not [name for name in names if any(part in name for part in junk)]


@pytest.mark.parametrize("version", ["3.7", "3.14", "3.99.1"])
async def test_versions_that_are_not_supported_name_those_that_are(version: str, tmp_path: Path) -> None:
    from intermodal.builder.bases import Bases
    from modal.exception import InvalidError

    class Log:
        def step(self, title: str) -> None: ...

        def write(self, text: str) -> None: ...

    with pytest.raises(InvalidError, match=r"3\.9, 3\.10, 3\.11, 3\.12, 3\.13"):
        await Bases(tmp_path, {}, registry=False).debian_slim(version, Log())
