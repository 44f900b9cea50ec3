"""The parameters of `@app.function()` and where functions may live."""

from __future__ import annotations

from typing import Any

import pytest

import modal
from modal._later import NotBuiltYet
from modal._objects.function_load import _refuse_what_is_not_built
from modal._objects.user_function import source_for
from modal._wire.messages.function import RetryPolicy, SourceKind
from modal.exception import InvalidError


def plain(x: int) -> int:
    return x


def generate() -> Any:
    yield 1


async def generate_async() -> Any:
    yield 1


class Holder:
    def method(self) -> None: ...


def options(**given: Any) -> Any:
    return modal.App().function(**given)(plain)._options  # type: ignore[arg-type]


def test_the_defaults_are_those_of_the_documentation() -> None:
    have = options()
    assert (have.resources.cpu, have.resources.memory) == (0.125, 128)
    assert (have.timeout, have.scaling.idle_timeout, have.scaling.min_containers) == (300.0, 60.0, 0)
    assert have.retries == RetryPolicy()


def test_requests_and_limits_are_pairs() -> None:
    have = options(cpu=(0.5, 2), memory=(256, 512), gpu=["a100:2", "any"]).resources
    assert (have.cpu, have.cpu_limit, have.memory, have.memory_limit) == (0.5, 2.0, 256, 512)
    assert have.gpu == ["A100-40GB:2", "ANY"]


def test_retries_are_a_number_or_a_policy() -> None:
    assert options(retries=3).retries.max_retries == 3
    policy = modal.Retries(max_retries=2, backoff_coefficient=1.5, initial_delay=0.5, max_delay=5)
    assert options(retries=policy).retries == RetryPolicy(2, 1.5, 0.5, 5.0)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("cpu", 0),
        ("cpu", -1.0),
        ("cpu", "1"),
        ("cpu", (2, 1)),
        ("cpu", (1, 2, 3)),
        ("cpu", float("nan")),
        ("memory", 0),
        ("memory", 1.5),
        ("memory", (512, 128)),
        ("ephemeral_disk", 0),
        ("timeout", 0),
        ("timeout", 8 * 86400),
        ("timeout", 1.5),
        ("retries", -1),
        ("retries", 11),
        ("retries", "often"),
        ("concurrency_limit", 0),
        ("allow_concurrent_inputs", 0),
        ("container_idle_timeout", 0),
        ("keep_warm", -1),
        ("keep_warm", True),
        ("max_inputs", 0),
        ("cloud", "moon"),
        ("region", [1]),
        ("image", "debian"),
        ("secrets", ["x"]),
        ("secrets", modal.Secret.from_dict({"A": "b"})),
        ("mounts", [1]),
        ("schedule", "* * * * *"),
        ("schedule", modal.Period),
        ("_experimental_buffer_containers", -1),
        ("_experimental_custom_scaling_factor", 2.0),
    ],
)
def test_a_bad_value_is_refused_by_its_name(parameter: str, value: Any) -> None:
    with pytest.raises(InvalidError, match=parameter):
        modal.App().function(**{parameter: value})


def test_a_scheduled_function_is_callable_without_arguments() -> None:
    app = modal.App()

    def tidy(limit: int = 10, *args: int, deep: bool = False, **options: int) -> None: ...

    def copy(source: str, *, target: str) -> None: ...

    daily = modal.Period(days=1)
    assert app.function(schedule=daily, serialized=True)(tidy)._options.schedule == daily
    with pytest.raises(InvalidError, match=r"'copy' has a schedule.*'source' and 'target'"):
        app.function(schedule=daily, serialized=True)(copy)
    with pytest.raises(InvalidError, match="generator"):
        app.function(schedule=daily)(generate)


def test_limits_below_the_warm_pool_are_refused() -> None:
    with pytest.raises(InvalidError, match="keep_warm"):
        modal.App().function(keep_warm=3, concurrency_limit=2)


@pytest.mark.parametrize(
    "given",
    [
        {"max_retries": 11},
        {"max_retries": -1},
        {"max_retries": 1, "backoff_coefficient": 0.5},
        {"max_retries": 1, "initial_delay": 61},
        {"max_retries": 1, "max_delay": 0.5},
    ],
)
def test_retry_policies_out_of_range_are_refused(given: Any) -> None:
    with pytest.raises(InvalidError, match=list(given)[-1]):
        modal.Retries(**given)


def test_missing_parentheses_are_noticed() -> None:
    app = modal.App()
    with pytest.raises(InvalidError, match=r"@app\.function\(\)"):
        app.function(plain)
    with pytest.raises(InvalidError, match=r"@app\.local_entrypoint\(\)"):
        app.local_entrypoint(plain)


def test_parts_that_come_later_are_refused_when_the_app_starts() -> None:
    app = modal.App()
    function = app.function(_experimental_proxy_ip="1.2.3.4", i6pn=True)(plain)
    with pytest.raises(NotBuiltYet, match="i6pn and _experimental_proxy_ip"):
        _refuse_what_is_not_built(function)
    marked = app.function(name="web")(modal.web_endpoint()(plain))
    with pytest.raises(NotBuiltYet, match="web_endpoint"):
        _refuse_what_is_not_built(marked)

    class Site:
        @modal.asgi_app()
        def page(self) -> None: ...

    app.cls(serialized=True)(Site)
    with pytest.raises(NotBuiltYet, match=r"class 'Site' uses @modal\.asgi_app"):
        _refuse_what_is_not_built(app._loadable()["Site"])


def test_functions_that_containers_cannot_find_are_refused() -> None:
    app = modal.App()

    def nested() -> None: ...

    for function, why in ((nested, "global scope"), (lambda: 1, "lambda"), (Holder.method, "class"), (Holder, "cls")):
        with pytest.raises(InvalidError, match=why):
            app.function()(function)
    for nothing in (1, "x", None):
        with pytest.raises(InvalidError):
            app.function()(nothing)  # type: ignore[call-overload]
    assert app.function(serialized=True)(nested)._tag == "nested"


def test_generators_are_recognised() -> None:
    app = modal.App()
    assert not app.function()(plain).is_generator
    assert app.function()(generate).is_generator
    assert app.function()(generate_async).is_generator
    assert app.function(is_generator=True, name="other")(plain).is_generator


def test_names_default_to_that_of_the_function_and_replace_with_a_warning() -> None:
    app = modal.App()
    app.function()(plain)
    app.function(name="other")(plain)
    assert set(app.registered_functions) == {"plain", "other"}
    with pytest.warns(UserWarning, match="replaces"):
        app.function(name="plain")(generate)


def test_an_app_includes_the_functions_of_another() -> None:
    one, other = modal.App("one"), modal.App("other")
    function = other.function()(plain)
    one.include(other)
    assert one.registered_functions == {"plain": function}
    third = modal.App()
    third.function()(plain)
    with pytest.raises(InvalidError, match="plain"):
        one.include(third)
    with pytest.raises(InvalidError, match=r"modal\.App"):
        one.include(1)  # type: ignore[arg-type]


def test_local_entrypoints_are_registered_and_callable() -> None:
    app = modal.App()
    entrypoint = app.local_entrypoint()(plain)
    assert entrypoint(3) == 3
    assert app.registered_entrypoints == {"plain": entrypoint}
    with pytest.raises(InvalidError, match="plain"):
        app.local_entrypoint()(plain)


@pytest.mark.parametrize("name", ["", "a b", "ü", "x" * 65, 3])
def test_bad_names_of_apps_are_refused(name: Any) -> None:
    with pytest.raises(InvalidError, match="name"):
        modal.App(name)


def test_a_function_in_a_module_is_imported_and_a_serialized_one_is_not() -> None:
    source = source_for(plain, False, ["local"])
    assert (source.kind, source.module, source.qualname) == (SourceKind.MODULE, __name__, "plain")
    assert source.local_modules == ["local"]
    assert source_for(plain, True, []).kind is SourceKind.SERIALIZED


def test_a_script_is_run_by_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    import sys
    import types

    module = types.ModuleType("__main__")
    module.__file__ = str(tmp_path / "my-app.py")
    module.__spec__ = None
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(plain, "__module__", "__main__")
    source = source_for(plain, False, [])
    assert (source.kind, source.module, source.path) == (SourceKind.FILE, "my-app", "/root/my-app.py")


def test_a_notebook_needs_serialized(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    monkeypatch.setattr(plain, "__module__", "__main__")
    with pytest.raises(InvalidError, match="serialized=True"):
        modal.App().function()(plain)
