"""Live functions: the spec, the image that was built for it, and the files its containers get. State only."""

from __future__ import annotations

from dataclasses import dataclass, field

from intermodal.model.container import BuiltImage
from intermodal.scheduling import events
from intermodal.store.interface import BindingRecord
from modal._wire.messages.common import ErrorInfo, FileEntry
from modal._wire.messages.function import FunctionSpec
from modal.exception import NotFoundError


@dataclass(frozen=True, slots=True)
class Revision:
    """What a function is until it is deployed again. A container runs the one that it was started with."""

    revision_id: str
    spec: FunctionSpec
    body: bytes  #: the pickled function when serialized
    image: BuiltImage
    files: tuple[FileEntry, ...]  #: mounts, merged

    @property
    def has_exit_hooks(self) -> bool:
        """Whether its containers want time when they are stopped."""
        return self.spec.cls is not None and self.spec.cls.has_exit_hooks


@dataclass(slots=True)
class Function:
    """A function of a live app."""

    function_id: str
    app_id: str
    revision: Revision
    binding: BindingRecord | None = None  #: set when it serves one set of parameters of a class
    shown_parameters: str = ""  #: of a bound function, e.g. "(size=3)"
    used_at: float = 0.0  #: seconds since the epoch; of bound functions only
    removed: str = ""  #: a sentence, when the app has it no longer: its containers finish what they have begun
    is_pooled: bool = False  #: the scheduler knows it
    starting: int = 0
    running: int = 0
    running_inputs: int = 0  #: handed to a container, not answered
    open_inputs: int = 0  #: accepted, without a final output
    done_inputs: int = 0
    failed_inputs: int = 0
    pending_reason: str = ""
    start_failure: tuple[ErrorInfo, bytes] | None = None  #: why the last container could not start, and its payload

    @property
    def spec(self) -> FunctionSpec:
        return self.revision.spec

    @property
    def parameters(self) -> bytes:
        """The values of a class's parameters, as in `FunctionBind`."""
        return self.binding.parameters if self.binding is not None else b""

    @property
    def can_run(self) -> bool:
        """Whether a container can be made of it: a class may need parameters first."""
        return self.spec.cls is None or not self.spec.cls.needs_parameters or bool(self.parameters)

    @property
    def title(self) -> str:
        """Its name for people, who tell the parameters of a class by it."""
        return self.spec.name + self.shown_parameters

    @property
    def queued_inputs(self) -> int:
        """Inputs that no container has."""
        return self.open_inputs - self.running_inputs


@dataclass(slots=True)
class Functions:
    """Every live function by id."""

    by_id: dict[str, Function] = field(default_factory=dict)

    def add(self, function: Function) -> None:
        self.by_id[function.function_id] = function

    def get(self, function_id: str) -> Function:
        """A function that can be called. Raises `NotFoundError`."""
        function = self.by_id.get(function_id)
        if function is None:
            raise NotFoundError(f"There is no function {function_id!r}; its app has stopped, or the id is wrong.")
        if function.removed:
            raise NotFoundError(function.removed)
        return function

    def of_app(self, app_id: str) -> list[Function]:
        return [function for function in self.by_id.values() if function.app_id == app_id]

    def remove(self, function_id: str) -> None:
        self.by_id.pop(function_id, None)


def pool_added(function: Function) -> events.PoolAdded:
    """What the scheduler is told of a function."""
    spec = function.spec
    return events.PoolAdded(
        function.function_id,
        function.app_id,
        spec.name,
        spec.resources,
        spec.scaling,
        spec.concurrency,
        spec.cloud,
        spec.regions,
        function.revision.revision_id,
    )


def label(name: str, method: str) -> str:
    """What was called, for people: a function, or a method of a class."""
    return f"{name}.{method}" if name and method else name or method


def merge_files(mounts: list[list[FileEntry]]) -> tuple[FileEntry, ...]:
    """One file a path: a later mount wins."""
    merged = {entry.path: entry for files in mounts for entry in files}
    return tuple(merged[path] for path in sorted(merged))
