"""What a user's class is made of, and which classes are refused."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from typing import Any

import pytest

import modal
from modal._objects import user_class
from modal._objects.cls import Cls
from modal._objects.cls_instance import Instance
from modal._wire.messages.function import ClassSpec, MethodSpec, ParameterSpec
from modal.exception import DeprecationError, InvalidError

int_alias = int
with pytest.warns(DeprecationError, match="build"):
    build = modal.build()


class Base:
    first: int = modal.parameter()

    @modal.enter()
    def base_enter(self) -> None: ...

    @modal.enter()
    def replaced(self) -> None: ...

    @modal.enter()
    def dropped(self) -> None: ...

    @modal.method()
    def run(self) -> None: ...


class Derived(Base):
    second: str = modal.parameter(default="x")
    third: int_alias = modal.parameter(default=-1)
    inner: list[int] = modal.parameter(init=False)

    @modal.enter(snap=True)
    def early(self) -> None: ...

    @modal.enter()
    async def replaced(self) -> None: ...

    def dropped(self) -> None: ...

    @modal.method()
    def values(self) -> Any:
        yield 1

    @modal.method(is_generator=True)
    def made(self) -> Any:
        return iter(())

    @modal.batched(max_batch_size=2, wait_ms=1)
    @modal.method()
    async def gathered(self, xs: list[int]) -> Any:
        return xs

    @modal.exit()
    def last(self) -> None: ...

    @build
    @modal.enter()
    def download(self) -> None: ...


def test_methods_hooks_and_parameters_come_from_the_bases_too() -> None:
    assert user_class.spec_of(Derived) == ClassSpec(
        methods={"run": MethodSpec(), "values": MethodSpec(True), "made": MethodSpec(True), "gathered": MethodSpec()},
        parameters=[
            ParameterSpec("first", "int"),
            ParameterSpec("second", "str", True, "x"),
            ParameterSpec("third", "int", True, -1),
        ],
        needs_parameters=True,
        has_exit_hooks=True,
    )
    assert list(user_class.enter_hooks(Derived)) == ["early", "base_enter", "replaced", "download"]
    assert list(user_class.exit_hooks(Derived)) == ["last"]
    assert list(user_class.build_hooks(Derived)) == ["download"]
    assert user_class.enter_hooks(Derived)["replaced"] is vars(Derived)["replaced"].raw_f


def test_an_instance_has_its_values_and_no_others() -> None:
    made = user_class.make_instance(Derived, (), {"first": 1, "third": 2})
    assert (made.first, made.second, made.third) == (1, "x", 2)
    with pytest.raises(AttributeError, match="'inner' of Derived has no value yet"):
        _ = made.inner
    made.inner = [1]
    assert made.inner == [1]
    with pytest.raises(TypeError, match="unexpected parameter 'frist'"):
        user_class.make_instance(Derived, (), {"frist": 1})


def test_parameters_travel_as_they_were_given() -> None:
    spec = user_class.spec_of(Derived)
    data = user_class.pack_parameters("C", spec, (), {"second": "é", "first": 2**63 - 1}, False)
    assert user_class.unpack_parameters(False, memoryview(data)) == ((), {"second": "é", "first": 2**63 - 1})
    pickled = ClassSpec(has_constructor=True)
    data = user_class.pack_parameters("C", pickled, ([1],), {"a": {2}}, False)
    assert user_class.unpack_parameters(True, memoryview(data)) == (([1],), {"a": {2}})
    assert user_class.pack_parameters("C", pickled, (), {}, False) == b""


def constructor(*, args: bool) -> type:
    if args:

        class WithArguments:
            def __init__(self, x: int, y: int = 1) -> None: ...

        return WithArguments

    class Without:
        def __init__(self) -> None: ...

    return Without


def test_parameters_by_position_are_refused_when_only_the_description_of_a_class_is_known() -> None:
    spec = ClassSpec({"run": MethodSpec(False)}, [ParameterSpec("first", "int", True, 1)])
    with pytest.raises(InvalidError, match=r"given by name, as in Model\(name=value\)"):
        user_class.pack_parameters("Model", spec, (5,), {}, False)


def test_old_exit_hooks_may_take_an_exception() -> None:
    class Old:
        @modal.exit()
        def leave(self, kind: Any, error: Any, traceback: Any) -> None: ...

    modal.App().cls(serialized=True)(Old)


def test_constructors_are_looked_at() -> None:
    assert user_class.spec_of(constructor(args=False)) == ClassSpec()
    assert user_class.spec_of(constructor(args=True)) == ClassSpec(has_constructor=True, needs_parameters=True)

    @dataclasses.dataclass
    class Data:
        x: int = 1

    class Variadic:
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    assert user_class.spec_of(Variadic) == ClassSpec()
    assert user_class.spec_of(Data) == ClassSpec(has_constructor=True)
    app = modal.App()
    with pytest.warns(DeprecationError, match="The class WithArguments"):
        cls = app.cls(serialized=True)(constructor(args=True))
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        cls(1, z=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        app.cls(serialized=True)(constructor(args=False))


class Unannotated:
    x = modal.parameter()


class WrongType:
    x: float = modal.parameter()


class WrongDefault:
    x: int = modal.parameter(default="1")


class Both:
    x: int = modal.parameter(default=1)

    def __init__(self) -> None: ...


class HookAndMethod:
    @modal.enter()
    @modal.method()
    def run(self) -> None: ...


class HookWithArgument:
    @modal.enter()
    def load(self, path: str) -> None: ...


class YieldingHook:
    @modal.enter()
    def load(self) -> Any:
        yield


class YieldingExit:
    @modal.exit()
    async def leave(self) -> Any:
        yield


class BatchedAndMore:
    @modal.batched(max_batch_size=2, wait_ms=1)
    def batch(self, xs: list[int]) -> Any: ...

    @modal.method()
    def run(self) -> None: ...


class BatchedGenerator:
    @modal.batched(max_batch_size=2, wait_ms=1)
    def batch(self, xs: list[int]) -> Any:
        yield xs


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Unannotated, "must be annotated with str or int"),
        (WrongType, "must be annotated with str or int"),
        (WrongDefault, "must be of type int, not '1'"),
        (Both, "both a constructor and modal.parameter"),
        (HookAndMethod, "is both a hook that runs on enter and a method"),
        (HookWithArgument, r"HookWithArgument\.load is called with no argument but self"),
        (YieldingHook, r"YieldingHook\.load yields"),
        (YieldingExit, r"YieldingExit\.leave yields"),
        (BatchedAndMore, "cannot have other methods"),
        (BatchedGenerator, "is a generator"),
        (len, "decorates classes"),
        (3, "decorates classes"),
    ],
)
def test_what_cannot_be_a_class_of_an_app_is_refused(cls: Any, words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        modal.App().cls()(cls)


def test_batches_and_concurrent_inputs_do_not_go_together() -> None:
    class Batched:
        @modal.batched(max_batch_size=2, wait_ms=1)
        def batch(self, xs: list[int]) -> Any: ...

    with pytest.raises(InvalidError, match=r"Batched\.batch.*cannot have both"):
        modal.App().cls(serialized=True, allow_concurrent_inputs=2)(Batched)


def test_a_class_must_be_where_containers_find_it() -> None:
    class Local: ...

    with pytest.raises(InvalidError, match="top level of its file"):
        modal.App().cls()(Local)
    with pytest.raises(InvalidError, match="with parentheses"):
        modal.App().cls(Derived)  # type: ignore[arg-type, call-overload, unused-ignore]


@pytest.mark.parametrize("mark", [modal.method(), modal.enter(), modal.exit()])
def test_marks_of_methods_are_refused_on_functions(mark: Any) -> None:
    def function() -> None: ...

    with pytest.raises(InvalidError, match="marks a method of a class"):
        modal.App().function(serialized=True)(mark(function))


def registered() -> tuple[modal.App, Any]:
    app = modal.App()

    class Model:
        size: int = modal.parameter(default=1)
        LIMIT = 5

        @staticmethod
        def plain() -> str:
            return "plain"

        @modal.method(keep_warm=None)
        def run(self) -> int:
            return self.size

    return app, app.cls(serialized=True)(Model)


def test_a_decorated_class_is_known_to_its_app() -> None:
    app, model = registered()
    assert isinstance(model, Cls)
    assert app.registered_classes == {"Model": model}
    assert app.indexed_objects == {"Model": model}
    assert app.registered_functions == {}
    assert (model.LIMIT, model.plain(), model(size=3).plain()) == (5, "plain", "plain")
    other = modal.App()
    other.include(app)
    assert other.registered_classes == {"Model": model}
    with pytest.raises(InvalidError, match="registered with an app already"):
        other.cls()(model)
    with pytest.raises(InvalidError, match="Both apps have a class 'Model'"):
        registered()[0].include(app)
    with pytest.raises(InvalidError, match="The class 'Model' cannot be called since its app is not running"):
        model().run.remote()


def test_references_travel() -> None:
    _, model = registered()
    instance = pickle.loads(pickle.dumps(model(size=3)))
    assert isinstance(instance, Instance)
    assert repr(instance) == "Model(size=3)"
    assert instance.run._method == "run"
    with pytest.raises(InvalidError, match="not in this process"):
        instance.run.local()
    assert repr(pickle.loads(pickle.dumps(model(size=3).run))).startswith("modal.Function Model.run")


def test_keep_warm_of_a_method_is_that_of_the_class() -> None:
    app = modal.App()
    with pytest.warns(DeprecationError, match="keep_warm"):

        class Warm:
            @modal.method(keep_warm=2)
            def run(self) -> None: ...

    cls: Any = app.cls(serialized=True)(Warm)
    assert cls._function._options.scaling.min_containers == 2
