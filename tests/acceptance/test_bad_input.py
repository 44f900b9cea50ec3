"""What a user gets wrong is answered by one clear sentence and an exit status."""

from __future__ import annotations

import pytest
from acceptance_harness import Platform, Program

pytestmark = pytest.mark.e2e

APP = """
    import modal
    app = modal.App("bad-input")

    @app.function()
    def evaluate(x: int):
        return x

    @app.local_entrypoint()
    def main(count: int = 1):
        print("ran", count)
"""


def test_a_file_that_is_not_there(platform: Platform, program: Program) -> None:
    program(APP, "search.py")
    ran = platform.modal("run", "serach.py", cwd=program.folder)
    ran.failed_with_one_sentence("No such file: serach.py", "Did you mean `search.py`?", code=2)


def test_a_module_that_is_not_there(platform: Platform, program: Program) -> None:
    ran = platform.modal("run", "-m", "no_such.module", cwd=program.folder)
    ran.failed_with_one_sentence("No such module: no_such.module", code=2)


def test_a_syntax_error_shows_its_place(platform: Platform, program: Program) -> None:
    ran = platform.modal("run", program("import modal\napp = modal.App(\n"))
    ran.failed_with_one_sentence("Syntax error", "app.py, line 2", "app = modal.App(")


def test_no_such_function_gives_the_near_matches(platform: Platform, program: Program) -> None:
    path = program(APP)
    ran = platform.modal("run", f"{path}::evalaute")
    ran.failed_with_one_sentence("no function or entrypoint `evalaute`", "Did you mean `evaluate`?")


def test_a_bad_option_value_names_the_option(platform: Platform, program: Program) -> None:
    ran = platform.modal("run", program(APP), "--count", "many")
    ran.failed_with_one_sentence("--count", "many", "integer", code=2)
    ran = platform.modal("run", program(APP), "--amount", "3")
    ran.failed_with_one_sentence("--amount", code=2)
    ran = platform.modal("run", f"{program(APP)}::evaluate")
    ran.failed_with_one_sentence("--x", code=2)


def test_two_entrypoints_and_none_named(platform: Platform, program: Program) -> None:
    path = program(
        "import modal\napp = modal.App('two')\n@app.local_entrypoint()\ndef one(): ...\n"
        "@app.local_entrypoint()\ndef two(): ...\n"
    )
    platform.modal("run", path).failed_with_one_sentence("2 local entrypoints", "`one` and `two`", "::one", code=2)


def test_a_file_without_an_app(platform: Platform, program: Program) -> None:
    platform.modal("run", program("x = 1\n")).failed_with_one_sentence("defines no app")


def test_user_code_that_fails_here_at_import_shows_its_own_frames_only(platform: Platform, program: Program) -> None:
    ran = platform.modal("run", program("import modal\napp = modal.App()\n{}['missing']\n"))
    ran.failed_with_traceback("KeyError: 'missing'", "{}['missing']")


def test_an_argument_that_cannot_be_pickled_names_its_type(platform: Platform, program: Program) -> None:
    path = program(
        """
        import threading
        import modal
        app = modal.App("unpicklable")

        @app.function()
        def f(x):
            return x

        @app.local_entrypoint()
        def main():
            f.remote(threading.Lock())
        """
    )
    ran = platform.modal("run", f"{path}::main").shows_no_frame_of_ours()
    assert ran.code == 1
    assert "SerializationError" in ran.err
    assert "lock" in ran.err
    assert "f.remote(threading.Lock())" in ran.err


def test_arguments_that_do_not_fit_the_function_fail_like_a_call(platform: Platform, program: Program) -> None:
    path = program(
        "import modal\napp = modal.App()\n@app.function()\ndef f(x): ...\n"
        "@app.local_entrypoint()\ndef main(): f.remote(1, 2)\n"
    )
    ran = platform.modal("run", f"{path}::main").shows_no_frame_of_ours()
    assert ran.code == 1
    assert "TypeError" in ran.err
    assert "positional argument" in ran.err


def test_more_than_the_machine_has_is_refused_at_once(platform: Platform, program: Program) -> None:
    path = program("import modal\napp = modal.App()\n@app.function(cpu=1000)\ndef f(): ...\n")
    platform.modal("run", path).failed_with_one_sentence("No container of f can ever start", "1000 cores")


def test_a_value_that_no_machine_could_have_is_refused_where_it_was_written(
    platform: Platform, program: Program
) -> None:
    path = program("import modal\napp = modal.App()\n@app.function(cpu=-1)\ndef f(): ...\n")
    platform.modal("run", path).failed_with_traceback("@app.function(cpu=-1)", "InvalidError: cpu must be a number")


def test_a_bad_server_address_is_refused(platform: Platform, program: Program) -> None:
    ran = platform.modal("run", program(APP), MODAL_SERVER_URL="ftp://example.org")
    ran.failed_with_one_sentence("MODAL_SERVER_URL", "http")
    ran = platform.modal("run", program(APP), MODAL_SERVER_URL="http://127.0.0.1:9")
    ran.failed_with_one_sentence("http://127.0.0.1:9", "Check that it is running")


def test_a_server_setting_that_does_not_fit_names_itself(platform: Platform) -> None:
    ran = platform.intermodal(
        "serve", INTERMODAL_DATA_DIR=str(platform.data_dir.parent / "new"), INTERMODAL_PORT="high"
    )
    ran.failed_with_one_sentence("port", "high")
    assert not (platform.data_dir.parent / "new").exists()


def test_modal_traceback_shows_everything(platform: Platform, program: Program) -> None:
    ran = platform.modal("run", f"{program(APP)}::no_such", MODAL_TRACEBACK="1")
    assert ran.code == 1
    assert "Traceback (most recent call last)" in ran.err
