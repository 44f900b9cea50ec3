"""Images as programs define them: what is in them, what is built again, and what a failing build says."""

from __future__ import annotations

import uuid

import pytest
from acceptance_harness import Platform, Program

pytestmark = pytest.mark.e2e


def fresh() -> str:
    """A word that is in no image yet."""
    return uuid.uuid4().hex


def test_layers_of_every_kind_are_there_in_the_container(platform: Platform, program: Program) -> None:
    path = program(
        f"""
        import os, subprocess
        import modal

        image = (
            modal.Image.debian_slim()
            .apt_install("tree")
            .pip_install("six")
            .env({{"COLOUR": "green", "SPACED": "a b $c"}})
            .run_commands("echo built $COLOUR > /built", "echo {fresh()} >> /built")
            .workdir("/srv")
        )
        app = modal.App("layers", image=image)

        with image.imports():
            import six

        @app.function()
        def look():
            built = open("/built").read().splitlines()
            tree = subprocess.run(["tree", "--version"], capture_output=True, text=True).stdout.split()[0]
            return six.__name__, tree, os.environ["COLOUR"], os.environ["SPACED"], built[0], os.getcwd()

        @app.local_entrypoint()
        def main():
            print(look.remote())
        """
    )
    ran = platform.modal("run", path, seconds=170).succeeded()
    assert ran.out == "('six', 'tree', 'green', 'a b $c', 'built green', '/srv')\n"
    assert "six" in ran.err, "the log of the build is not shown"


def test_an_import_that_is_missing_in_the_image_fails_the_call(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("imports")
        image = modal.Image.debian_slim()

        with image.imports():
            import no_such_module_in_the_image

        @app.function(image=image)
        def f():
            return 1
        """
    )
    ran = platform.modal("run", f"{path}::f").shows_no_frame_of_ours()
    assert ran.code == 1
    assert "No module named 'no_such_module_in_the_image'" in ran.err


FILES = """
    import os
    import modal
    image = modal.Image.debian_slim(){layers}
    app = modal.App("files", image=image)

    @app.function()
    def look():
        found = []
        for top in ("/data", "/one.txt", "/root/lib"):
            if os.path.isfile(top):
                found.append(top)
            for folder, _, names in os.walk(top):
                found += [os.path.join(folder, name) for name in names if not name.endswith(".pyc")]
        return sorted(found)

    @app.function()
    def imported():
        import lib
        return lib.WORD

    @app.local_entrypoint()
    def main():
        print(*look.remote())

    @app.local_entrypoint()
    def use():
        print(imported.remote())
"""


@pytest.mark.parametrize("copy", ["True", "False"])
def test_local_files_directories_and_modules_are_added(copy: str, platform: Platform, program: Program) -> None:
    program("one", "one.txt")
    program("", "data/a.txt")
    program("", "data/b.log")
    program("", "data/deep/c.txt")
    program("WORD = 'from lib'", "lib/__init__.py")
    program("not python", "lib/notes.txt")
    path = program(
        FILES.format(
            layers=f".add_local_file('one.txt', '/one.txt', copy={copy})"
            f".add_local_dir('data', '/data', copy={copy})"
            f".add_local_python_source('lib', copy={copy})"
        )
    )
    ran = platform.modal("run", f"{path}::main", cwd=program.folder, MODAL_AUTOMOUNT="0").succeeded()
    assert ran.out.split() == ["/data/a.txt", "/data/b.log", "/data/deep/c.txt", "/one.txt", "/root/lib/__init__.py"]
    assert (
        platform.modal("run", f"{path}::use", cwd=program.folder, MODAL_AUTOMOUNT="0").succeeded().out == "from lib\n"
    )


@pytest.mark.parametrize("copy", ["True", "False"])
@pytest.mark.parametrize(
    ("ignore", "expected"),
    [
        ("['**/*.txt']", ["/data/b.log"]),
        ("lambda path: path.suffix == '.log'", ["/data/a.txt", "/data/deep/c.txt"]),
        ("modal.FilePatternMatcher('deep', '!deep/c.txt')", ["/data/a.txt", "/data/b.log", "/data/deep/c.txt"]),
        ("~modal.FilePatternMatcher('**/*.txt')", ["/data/a.txt", "/data/deep/c.txt"]),
    ],
)
def test_ignored_files_stay_at_home(
    copy: str, ignore: str, expected: list[str], platform: Platform, program: Program
) -> None:
    for name in ("a.txt", "b.log", "deep/c.txt"):
        program("", f"data/{name}")
    path = program(FILES.format(layers=f".add_local_dir('data', '/data', ignore={ignore}, copy={copy})"))
    assert platform.modal("run", f"{path}::main", cwd=program.folder).succeeded().out.split() == expected


def test_a_changed_local_file_is_seen_by_the_next_run(platform: Platform, program: Program) -> None:
    path = program(
        """
        import modal
        app = modal.App("changing", image=modal.Image.debian_slim().add_local_file("word.txt", "/word"))

        @app.function()
        def read():
            return open("/word").read()
        """
    )
    for word in ("first", "second"):
        program(word, "word.txt")
        assert platform.modal("run", f"{path}::read", cwd=program.folder).succeeded().out == word + "\n"


def test_a_build_step_after_files_that_are_not_copied_says_what_to_do(platform: Platform, program: Program) -> None:
    program("one", "one.txt")
    path = program(
        """
        import modal
        image = modal.Image.debian_slim().add_local_file("one.txt", "/one.txt").run_commands("cat /one.txt")
        app = modal.App("order", image=image)

        @app.function()
        def f():
            return 1
        """
    )
    ran = platform.modal("run", path, cwd=program.folder).shows_no_frame_of_ours()
    assert ran.code == 1
    assert "copy=True" in ran.err


LAYERS = """
    import modal
    image = modal.Image.debian_slim().run_commands("echo first-{first}").run_commands("echo last-{last}"{force})
    app = modal.App("rebuild", image=image)

    @app.function()
    def f():
        return 1
"""


def test_only_a_changed_last_layer_is_built_again(platform: Platform, program: Program) -> None:
    first, last, changed = fresh(), fresh(), fresh()
    ran = platform.modal("run", program(LAYERS.format(first=first, last=last, force=""))).succeeded()
    assert f"\nfirst-{first}\n" in ran.err
    assert f"\nlast-{last}\n" in ran.err
    ran = platform.modal("run", program(LAYERS.format(first=first, last=changed, force=""))).succeeded()
    assert f"\nfirst-{first}\n" not in ran.err
    assert f"\nlast-{changed}\n" in ran.err
    ran = platform.modal("run", program(LAYERS.format(first=first, last=changed, force=""))).succeeded()
    assert "echo" not in ran.err, "an image that is there was built again"


def test_force_build_builds_that_layer_again(platform: Platform, program: Program) -> None:
    first, last = fresh(), fresh()
    path = program(LAYERS.format(first=first, last=last, force=", force_build=True"))
    for _ in range(2):
        ran = platform.modal("run", path).succeeded()
        assert f"\nlast-{last}\n" in ran.err
    assert f"\nfirst-{first}\n" not in ran.err
    ran = platform.modal("run", program(LAYERS.format(first=first, last=last, force="")), MODAL_FORCE_BUILD="1")
    assert f"\nfirst-{first}\n" in ran.succeeded().err


def test_an_image_is_found_by_its_id(platform: Platform, program: Program) -> None:
    word = fresh()
    path = program(
        f"""
        import modal
        image = modal.Image.debian_slim().run_commands("echo {word} > /word")
        app = modal.App("by-id", image=image)

        @app.function()
        def f():
            return 1

        @app.local_entrypoint()
        def main():
            print(image.object_id)
        """
    )
    image_id = platform.modal("run", f"{path}::main").succeeded().out.strip()
    assert image_id.startswith("im-")
    source = """
        import modal
        app = modal.App("from-id", image=modal.Image.from_id("{image_id}"))

        @app.function()
        def f():
            return open("/word").read().strip()
    """
    path = program(source.format(image_id=image_id))
    assert platform.modal("run", f"{path}::f").succeeded().out == word + "\n"
    unknown = platform.modal("run", program(source.format(image_id="im-" + "0" * 22)))
    unknown.failed_with_one_sentence("im-" + "0" * 22)


def test_two_runs_at_once_build_a_new_image_once_and_both_see_its_log(platform: Platform, program: Program) -> None:
    path = program(
        f"""
        import modal
        build = "echo building {fresh()} && sleep 3 && cat /proc/sys/kernel/random/uuid > /uuid"
        app = modal.App("at-once", image=modal.Image.debian_slim().run_commands(build))

        @app.function()
        def f():
            return open("/uuid").read().strip()
        """
    )
    with (
        platform.background("modal", "run", path) as one,
        platform.background("modal", "run", path) as other,
    ):
        outcomes = [one.end().succeeded(), other.end().succeeded()]
    assert outcomes[0].out == outcomes[1].out
    assert len(outcomes[0].out.strip()) == 36
    assert all("\nbuilding " in outcome.err for outcome in outcomes)


def run_image(platform: Platform, program: Program, image: str, **env: str):  # type: ignore[no-untyped-def]
    path = program(
        f"""
        import modal
        app = modal.App("broken", image={image})

        @app.function()
        def f():
            return 1
        """
    )
    return platform.modal("run", path, seconds=170, **env)


def test_a_failing_step_shows_its_command_and_the_end_of_its_output(platform: Platform, program: Program) -> None:
    command = "for i in 1 2 3; do echo counting $i; done; echo the reason >&2; exit 7"
    ran = run_image(platform, program, f"modal.Image.debian_slim().run_commands({command!r})")
    ran.failed_with_one_sentence("counting 3", "the reason", "exit 7", "7")
    error = ran.err[ran.err.index("Error: ") :]
    assert command in error
    assert "the reason" in error
    again = run_image(platform, program, f"modal.Image.debian_slim().run_commands({command!r})", INTERMODAL_X="1")
    again.failed_with_one_sentence("the reason")
    quiet = platform.modal("run", "--quiet", program.folder / "app.py")
    quiet.failed_with_one_sentence(command, "the reason")
    assert quiet.err.startswith("Error: ")


def test_a_pip_package_that_does_not_exist_is_named(platform: Platform, program: Program) -> None:
    ran = run_image(platform, program, "modal.Image.debian_slim().pip_install('no-such-package-of-intermodal')")
    ran.failed_with_one_sentence("no-such-package-of-intermodal")
    assert "no-such-package-of-intermodal" in ran.err[ran.err.index("Error: ") :]


def test_an_apt_package_that_does_not_exist_is_named(platform: Platform, program: Program) -> None:
    ran = run_image(platform, program, "modal.Image.debian_slim().apt_install('no-such-package-of-intermodal')")
    ran.failed_with_one_sentence("Unable to locate package no-such-package-of-intermodal")


def test_a_python_version_that_is_not_available_is_refused_with_those_that_are(
    platform: Platform, program: Program
) -> None:
    ran = run_image(platform, program, "modal.Image.debian_slim(python_version='3.4')").shows_no_frame_of_ours()
    assert ran.code == 1
    for version in ("3.4", "3.10", "3.11", "3.12", "3.13"):
        assert version in ran.err
