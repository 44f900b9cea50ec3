from __future__ import annotations

import datetime
from typing import Any, Optional

import click
import pytest

from modal.cli.errors import CliError
from modal.cli.options import EntrypointCommand, build_parameters, collect_arguments


def call(function: Any, *arguments: str) -> Any:
    """Call `function` with what the command line `arguments` mean."""
    command = EntrypointCommand("main", params=build_parameters(function))
    values = collect_arguments(function, command.make_context("main", list(arguments)).params)
    return function(*values.args, **values.kwargs)


def test_each_supported_type_is_parsed():
    def main(a_name: str, count: int, share: float, flag: bool, when: datetime.datetime):
        return a_name, count, share, flag, when

    got = call(main, "--a-name", "x", "--count", "3", "--share", "0.5", "--flag", "--when", "2024-05-06T07:08:09")
    assert got == ("x", 3, 0.5, True, datetime.datetime(2024, 5, 6, 7, 8, 9))


def test_defaults_apply_and_can_be_overridden():
    def main(max_models: int = 24, verbose: bool = True, name: Optional[str] = None, on: Optional[bool] = None):
        return max_models, verbose, name, on

    assert call(main) == (24, True, None, None)
    assert call(main, "--max-models=3", "--no-verbose", "--name", "n", "--on") == (3, False, "n", True)


def test_annotations_may_be_text():
    def main(a: int, b: Optional[float] = None, c: str | None = None, d: Optional[datetime.datetime] = None):
        return a, b, c, d

    assert call(main, "--a", "1", "--b", "2", "--c", "3") == (1, 2.0, "3", None)


def test_a_parameter_without_annotation_takes_the_type_of_its_default():
    def main(text, count=2, other=None):
        return text, count, other

    assert call(main, "--text", "5", "--count", "5", "--other", "5") == ("5", 5, "5")


def test_rest_arguments_are_passed_as_they_are():
    def main(first: int = 1, *rest, last: str = "z"):
        return first, rest, last

    assert call(main, "--first", "2", "a", "b", "--last", "y") == (2, ("a", "b"), "y")


def test_positional_only_and_keyword_only_parameters_work():
    def main(a: int, /, *, b: int, **more):
        return a, b, more

    assert call(main, "--a", "1", "--b", "2") == (1, 2, {})


@pytest.mark.parametrize("annotation", [list, "list[int]", Optional[dict], "NoSuchType", "int | str"])
def test_an_unsupported_annotation_names_the_parameter(annotation):
    def main(good: int, bad=None):
        pass

    main.__annotations__["bad"] = annotation
    with pytest.raises(CliError, match=r"parameter `bad` of `main`.*annotate it with str, int"):
        build_parameters(main)


def test_a_bad_value_names_the_option():
    def main(count: int):
        pass

    with pytest.raises(click.BadParameter, match="'many' is not a valid int") as caught:
        call(main, "--count", "many")
    assert "--count" in caught.value.format_message()


def test_a_missing_option_is_named():
    def main(count: int):
        pass

    with pytest.raises(click.MissingParameter) as caught:
        call(main)
    assert "--count" in caught.value.format_message()


def test_an_unknown_option_gets_near_matches():
    def main(max_models: int = 1):
        pass

    with pytest.raises(CliError, match=r"no option `--max-model`\. Did you mean `--max-models`\?") as caught:
        call(main, "--max-model", "3")
    assert caught.value.exit_code == 2


def test_an_option_of_run_after_the_reference_gets_a_hint():
    def main():
        pass

    command = EntrypointCommand("main", params=build_parameters(main))
    command.run_options = frozenset({"--detach"})
    with pytest.raises(CliError, match="put it before the reference"):
        command.make_context("main", ["--detach"])
