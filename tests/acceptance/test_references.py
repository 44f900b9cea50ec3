"""Every way to name what `modal run` runs, and what travels with it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from acceptance_harness import Platform, Program, wait_until

from intermodal.builder.python_source import find_interpreters

pytestmark = pytest.mark.e2e

TWO_FUNCTIONS = """
    import modal

    app = modal.App("two")
    other = modal.App("other")

    @app.function()
    def double(x: int):
        return x * 2

    @other.function()
    def triple(x: int = 2):
        return x * 3
"""

OPTIONS = '''
    import datetime
    from typing import Optional

    import modal

    app = modal.App("options")

    @app.local_entrypoint()
    def main(name: str, count: int = 3, ratio: float = 0.5, verbose: bool = False,
             when: datetime.datetime = datetime.datetime(2020, 1, 1), max_models: Optional[int] = None):
        """Show what was given."""
        print(repr((name, count, ratio, verbose, when, max_models)))
'''


def test_a_function_named_alone_or_through_its_app_runs_in_a_container(platform: Platform, program: Program) -> None:
    path = program(TWO_FUNCTIONS)
    assert platform.modal("run", f"{path}::double", "--x", 21).succeeded().out == "42\n"
    assert platform.modal("run", f"{path}::other.triple", "--x", "5").succeeded().out == "15\n"


def test_a_file_alone_runs_its_only_function(platform: Platform, program: Program) -> None:
    path = program("import modal\napp = modal.App('one')\n@app.function()\ndef only(): return 'the only one'\n")
    assert platform.modal("run", path).succeeded().out == "the only one\n"


def test_a_relative_path_works_from_the_directory_of_the_file(platform: Platform, program: Program) -> None:
    program(TWO_FUNCTIONS)
    assert platform.modal("run", "app.py::double", "--x", 4, cwd=program.folder).succeeded().out == "8\n"


def test_a_module_of_a_package_runs_with_or_without_a_function_named(platform: Platform, program: Program) -> None:
    program("", "pkg/__init__.py")
    program("FACTOR = 7\n", "pkg/constants.py")
    program(
        """
        import modal
        from .constants import FACTOR

        app = modal.App("in-a-package")

        @app.function()
        def multiply(x: int = 2):
            from pkg.constants import FACTOR as again
            assert again == FACTOR
            return x * FACTOR, __name__

        @app.local_entrypoint()
        def main():
            print(multiply.remote(3))
        """,
        "pkg/mod.py",
    )
    ran = platform.modal("run", "-m", "pkg.mod", cwd=program.folder).succeeded()
    assert ran.out == "(21, 'pkg.mod')\n"
    ran = platform.modal("run", "-m", "pkg.mod::multiply", "--x", 5, cwd=program.folder).succeeded()
    assert ran.out == "(35, 'pkg.mod')\n"


def test_options_come_from_the_annotations_of_the_entrypoint(platform: Platform, program: Program) -> None:
    path = program(OPTIONS)
    ran = platform.modal(
        *("run", path, "--name", "Ada", "--count", 5, "--ratio", "0.25", "--verbose"),
        *("--when", "2024-02-29", "--max-models", 9),
    ).succeeded()
    assert ran.out == "('Ada', 5, 0.25, True, datetime.datetime(2024, 2, 29, 0, 0), 9)\n"
    ran = platform.modal("run", path, "--name", "Bob", "--no-verbose").succeeded()
    assert ran.out == "('Bob', 3, 0.5, False, datetime.datetime(2020, 1, 1, 0, 0), None)\n"


def test_help_of_an_entrypoint_lists_its_options_and_runs_nothing(platform: Platform, program: Program) -> None:
    ran = platform.modal("run", program(OPTIONS), "--help").succeeded()
    for part in ("Show what was given.", "--name", "--count", "--ratio", "--verbose / --no-verbose", "--max-models"):
        assert part in ran.out
    assert "App ap-" not in ran.err


def test_the_result_of_an_entrypoint_or_function_is_written_to_a_file(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("results")

        @app.function()
        def blob():
            return bytes(range(256))

        @app.local_entrypoint()
        def text():
            return "größe"

        @app.local_entrypoint()
        def number():
            return 12
        """
    )
    target = program.folder / "result"
    ran = platform.modal("run", "--write-result", target, f"{path}::text").succeeded()
    assert target.read_text() == "größe"
    assert ran.out == ""
    platform.modal("run", "-w", target, f"{path}::blob").succeeded()
    assert target.read_bytes() == bytes(range(256))
    ran = platform.modal("run", "-w", target, f"{path}::number")
    ran.failed_with_one_sentence("str or bytes", "returned int")
    assert target.read_bytes() == bytes(range(256)), "a refused result replaced the file"


def test_a_detached_app_goes_on_after_its_client_and_ends_when_idle(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("detached")

        @app.function(container_idle_timeout=2)
        def work(seconds: float):
            import time
            time.sleep(seconds)
            return "done"

        @app.local_entrypoint()
        def main():
            print(work.spawn(4).object_id)
        """
    )
    ran = platform.modal("run", "--detach", path).succeeded()
    assert ran.out.startswith("fc-")
    client_left = time.monotonic()
    running = json.loads(platform.intermodal("status", "--json").succeeded().out)
    assert running["containers"] == 1
    program(
        """
        import sys, modal
        print(modal.FunctionCall.from_id(sys.argv[1]).get(timeout=30))
        """,
        "fetch.py",
    )
    with platform.background("python", program.folder / "fetch.py", ran.out.strip()) as fetching:
        assert fetching.end().succeeded().out == "done\n"
    assert time.monotonic() - client_left > 2, "it was done before its client left"
    wait_until(lambda: not platform.containers(), "the idle app to give its container up", 30)


def test_an_imported_local_package_travels_without_its_data_files(platform: Platform, program: Program) -> None:
    program("from .deep import WORD\n", "helpers/__init__.py")
    program("WORD = 'deep'\n", "helpers/deep.py")
    program("secret of the user", "helpers/data.txt")
    path = program(
        """
        import modal
        import helpers
        app = modal.App("automount")

        @app.function()
        def look():
            from pathlib import Path
            folder = Path(helpers.__file__).parent
            return helpers.WORD, str(folder), sorted(p.name for p in folder.iterdir() if p.is_file())
        """
    )
    ran = platform.modal("run", "--show-files", f"{path}::look").succeeded()
    assert ran.out == "('deep', '/root/helpers', ['__init__.py', 'deep.py'])\n"
    assert "helpers/deep.py" in ran.err
    assert "data.txt" not in ran.err


def test_without_automount_the_error_names_the_call_that_sends_the_module(platform: Platform, program: Program) -> None:
    program("WORD = 'here'\n", "helpers.py")
    path = program(
        """
        import modal
        import helpers
        app = modal.App("no-automount")

        @app.function()
        def look():
            return helpers.WORD
        """
    )
    ran = platform.modal("run", f"{path}::look", MODAL_AUTOMOUNT="0")
    ran.shows_no_frame_of_ours()
    assert ran.code == 1
    assert "ModuleNotFoundError" in ran.err
    assert "No module named 'helpers'" in ran.err
    assert "add_local_python_source" in ran.err


def test_a_serialized_function_needs_no_module_in_the_container(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("serialized")

        @app.local_entrypoint()
        def main():
            pass

        def make(offset):
            @app.function(serialized=True, name=f"add{offset}")
            def add(x):
                import sys
                return x + offset, "app" in sys.modules
            return add

        add5, add6 = make(5), make(6)

        @app.local_entrypoint()
        def both():
            print(add5.remote(1), add6.remote(1))
        """
    )
    assert platform.modal("run", f"{path}::both").succeeded().out == "(6, False) (7, False)\n"


OTHER_PYTHON = """
    import modal
    app = modal.App("other-python", image=modal.Image.debian_slim(python_version="{version}"))

    @app.function()
    def version():
        import sys
        return "%d.%d" % sys.version_info[:2]

    @app.function(serialized=True)
    def pickled():
        return 1
"""


@pytest.fixture(scope="module")
def other_version() -> str:
    """A Python, other than this process's, that images can have without a registry."""
    found = {one.series for one in find_interpreters(dict(os.environ), Path("/nonexistent"))} & {"3.10", "3.12", "3.13"}
    if not found:
        pytest.skip("there is no other Python on this machine that an image can have")
    return max(found)


@pytest.fixture
def other_python(other_version: str, program: Program) -> Path:
    return program(OTHER_PYTHON.replace("{version}", other_version))


def test_an_image_with_another_python_runs_ordinary_functions(
    platform: Platform, other_python: Path, other_version: str
) -> None:
    ran = platform.modal("run", f"{other_python}::version", seconds=170)
    assert ran.succeeded().out == f"{other_version}\n"


def test_a_serialized_function_that_meets_another_python_says_which_two(
    platform: Platform, other_python: Path, other_version: str
) -> None:
    ran = platform.modal("run", f"{other_python}::pickled", seconds=170)
    ran.failed_with_one_sentence("3.11", other_version, "serialized")
