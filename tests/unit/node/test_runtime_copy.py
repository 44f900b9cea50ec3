from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from intermodal.node.runtime_copy import SourceCopies, compile_tree, content_hash, copy_packages, find_interpreter


def test_a_copy_runs_by_itself_from_bytecode(tmp_path: Path) -> None:
    copy_packages(tmp_path)
    compile_tree(Path(sys.executable), tmp_path)
    assert list((tmp_path / "sdk/modal/__pycache__").glob("exception.*.pyc"))
    for path in (tmp_path / "sdk/modal", tmp_path / "vendor/cloudpickle", tmp_path / "sdk/modal/exception.py"):
        assert path.stat().st_mode & 0o444 == 0o444
    code = "import modal.exception, cloudpickle; print(modal.exception.__file__)"
    env = {"PYTHONPATH": f"{tmp_path}/sdk:{tmp_path}/vendor"}
    found = subprocess.run([sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(tmp_path / "sdk/modal/exception.py")


def test_the_name_of_a_copy_is_stable() -> None:
    assert content_hash() == content_hash()
    assert len(content_hash()) == 16


def test_interpreters_are_found_by_version() -> None:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert find_interpreter(own) == Path(sys.executable)
    assert find_interpreter("3.1") is None


async def test_the_installation_itself_serves_plain_processes() -> None:
    copy = await SourceCopies().get("3.11.7")
    assert (copy.sdk / "modal" / "exception.py").is_file()
    assert (copy.vendor / "cloudpickle").is_dir()


@pytest.mark.parametrize(
    ("program", "status", "output"),
    [
        ("import sys; print(__name__, sys.argv[1:], __file__ == sys.argv[0]); sys.exit(3)", 3, "__main__ ['a'] True\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137, ""),
        ("import os\nif os.fork() == 0: os._exit(9)\nimport time; time.sleep(0.1)", 0, ""),
    ],
)
def test_the_first_process_passes_the_status_of_the_second(
    tmp_path: Path, program: str, status: int, output: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(program)
    init = Path(__file__).parents[3] / "src" / "intermodal" / "node" / "init.py"
    ended = subprocess.run([sys.executable, str(init), str(script), "a"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (status, output)


def test_the_first_process_passes_signals_on(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(5))\nprint(flush=True)\nsignal.pause()"
    )
    init = Path(__file__).parents[3] / "src" / "intermodal" / "node" / "init.py"
    with subprocess.Popen([sys.executable, str(init), str(script)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, 15)
        assert process.wait(10) == 5
