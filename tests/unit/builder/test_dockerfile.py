"""The Dockerfiles of layers."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intermodal.builder import dockerfile
from modal._wire.messages.image import PipInstall
from modal.exception import InvalidError

READ = f". {dockerfile.ENVIRONMENT}; "


def test_run_steps_read_the_environment_first_and_other_steps_are_kept() -> None:
    recipe = dockerfile.commands("parent", ["ENV A=1", "RUN --network=none echo a", "COPY x /y"])
    assert recipe.text == f"FROM parent\nENV A=1\nRUN --network=none {READ}echo a\nCOPY x /y\n"
    assert recipe.titles == ("ENV A=1", "RUN --network=none echo a", "COPY x /y")


def test_the_exec_form_keeps_its_words() -> None:
    line = dockerfile.commands("parent", ['RUN ["a", "b c"]']).text.splitlines()[1]
    assert json.loads(line.removeprefix("RUN ")) == ["/bin/sh", "-c", f'{READ}exec "$@"', "sh", "a", "b c"]


@pytest.mark.parametrize(
    ("shell", "reads"),
    [
        (["/bin/bash", "-lc"], True),
        (["conda", "run", "-n", "env", "/bin/bash", "-c"], True),
        (["python", "-c"], False),
    ],
)
def test_only_shells_that_can_read_the_environment_are_told_to(shell: list[str], reads: bool) -> None:
    inside = dockerfile.commands("parent", [f"SHELL {json.dumps(shell)}", "RUN x"]).text.splitlines()[-1]
    below = dockerfile.commands("parent", ["RUN x"], shell).text.splitlines()[-1]
    assert inside == below == ("RUN " + READ * reads + "x")


def test_uv_installs_unless_there_are_options_for_pip() -> None:
    assert dockerfile.pip_command(PipInstall(["a"])).startswith(dockerfile.UV)
    with_options = dockerfile.pip_command(PipInstall(["a"], extra_options="--no-deps -v"))
    assert with_options.startswith("python -m pip install")
    assert with_options.endswith("--no-deps -v -- a")


def test_sources_of_packages_are_passed_on() -> None:
    pip = PipInstall(["a"], find_links="F", index_url="I", extra_index_url="E", pre=True)
    assert dockerfile.pip_command(pip).endswith("--index-url I --extra-index-url E --find-links F --pre -- a")


def test_unbalanced_quotes_in_options_are_refused() -> None:
    with pytest.raises(InvalidError, match="extra_options"):
        dockerfile.pip_command(PipInstall(["a"], extra_options='--x "y'))


@given(
    st.lists(st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", codec="utf-8"), min_size=1), min_size=1)
)
def test_no_package_name_leaves_its_argument(packages: list[str]) -> None:
    recipe = dockerfile.pip_install("parent", PipInstall(packages))
    first, run, rest = recipe.text.split("\n")
    assert (first, rest) == ("FROM parent", "")
    words = json.loads(run.removeprefix("RUN "))
    command = words[2].removeprefix(READ)
    assert shlex.split(command)[-len(packages) :] == packages
