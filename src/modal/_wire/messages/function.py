"""Functions: the one frozen spec that a decorator's many parameters collapse into."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Optional

from .common import Empty, Method
from .named import ObjectKind


class SourceKind(enum.Enum):
    """How the container finds the user's code."""

    FILE = "file"  #: run the script at `path` as module `module`
    MODULE = "module"  #: import `module`
    SERIALIZED = "serialized"  #: unpickle the body of FUNCTION_CREATE


@dataclass(frozen=True)
class Source:
    kind: SourceKind
    module: str = ""  #: module name, as the user's process knows it ("__main__" never; the script's stem instead)
    qualname: str = ""  #: e.g. "square" or "Model.predict"
    path: str = ""  #: FILE: absolute path in the container, e.g. "/root/app.py"
    app_variable: str = ""  #: unused by SERIALIZED; name of the App in the module where known
    python: str = ""  #: SERIALIZED: "3.11" of the process that pickled it
    #: top-level modules that exist locally but were not sent, for error messages
    local_modules: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Resources:
    cpu: float = 0.125  #: cores requested
    cpu_limit: Optional[float] = None  #: hard limit in cores
    memory: int = 128  #: MiB requested
    memory_limit: Optional[int] = None  #: hard limit in MiB
    ephemeral_disk: Optional[int] = None  #: MiB the container may write
    gpu: list[str] = field(default_factory=list)  #: alternatives in order, e.g. ["A100:2"]


@dataclass(frozen=True)
class RetryPolicy:
    max_retries: int = 0
    backoff_coefficient: float = 2.0
    initial_delay: float = 1.0  #: seconds
    max_delay: float = 60.0  #: seconds


@dataclass(frozen=True)
class Scaling:
    min_containers: int = 0  #: keep_warm
    max_containers: Optional[int] = None  #: concurrency_limit
    buffer_containers: int = 0
    idle_timeout: float = 60.0  #: seconds
    factor: Optional[float] = None  #: _experimental_custom_scaling_factor


@dataclass(frozen=True)
class Concurrency:
    max_concurrent_inputs: int = 1  #: allow_concurrent_inputs
    max_inputs: Optional[int] = None  #: inputs before the container is replaced
    batch_max_size: int = 0  #: 0: not batched
    batch_wait_ms: int = 0


@dataclass(frozen=True)
class MethodSpec:
    """A method of a class that callers can name."""

    is_generator: bool = False


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter that a class declares with `modal.parameter()`."""

    name: str
    type: str  #: one of PARAMETER_TYPES
    has_default: bool = False
    default: Any = None  #: of that type, when there is one


@dataclass(frozen=True)
class ClassSpec:
    """What makes a function a class: a container makes one instance and serves all of its methods."""

    methods: dict[str, MethodSpec] = field(default_factory=dict)
    parameters: list[ParameterSpec] = field(default_factory=list)  #: declared ones; then values travel as JSON
    has_constructor: bool = False  #: its own `__init__` takes arguments, which travel pickled; it declares none then
    needs_parameters: bool = False  #: it cannot be made without values
    has_exit_hooks: bool = False  #: its containers are given time when they are stopped


PARAMETER_TYPES = ("str", "int")
PARAMETERS_LIMIT = 256 * 1024  #: bytes of the values of a class's parameters


@dataclass(frozen=True)
class VolumeMount:
    """A volume or network file system in the containers of a function."""

    path: str  #: absolute, normalised
    object_id: str  #: vo-… or sr-…
    read_only: bool = False
    #: how the client found it: in the containers this means that object, whatever has the name by then
    kind: ObjectKind = ObjectKind.VOLUME
    name: str = ""  #: "": not by a name
    environment: str = ""  #: "": that of the app


@dataclass(frozen=True)
class BucketMount:
    """A bucket of an S3-compatible service in the containers of a function."""

    path: str  #: absolute, normalised
    bucket_name: str
    endpoint_url: str = ""  #: of the service; "": Amazon's
    key_prefix: str = ""  #: of the objects that are seen; "", or it ends with a slash
    secret_id: str = ""  #: holds the keys; "": the bucket is public
    read_only: bool = False
    requester_pays: bool = False


@dataclass(frozen=True)
class FunctionSpec:
    """Everything that the server and the container need to know of a function."""

    name: str  #: tag within the app
    source: Source
    image_id: str
    mount_ids: list[str] = field(default_factory=list)  #: later mounts win
    secret_ids: list[str] = field(default_factory=list)  #: later secrets win
    volumes: list[VolumeMount] = field(default_factory=list)  #: none within another
    buckets: list[BucketMount] = field(default_factory=list)  #: nor these
    is_generator: bool = False
    resources: Resources = field(default_factory=Resources)
    timeout: float = 300.0  #: seconds per input
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    scaling: Scaling = field(default_factory=Scaling)
    concurrency: Concurrency = field(default_factory=Concurrency)
    block_network: bool = False
    cloud: str = ""
    regions: list[str] = field(default_factory=list)
    enable_memory_snapshot: bool = False
    schedule: dict[str, Any] = field(default_factory=dict)  #: empty: none
    cls: Optional[ClassSpec] = None  #: set for a class


@dataclass(frozen=True)
class FunctionCreate:
    """The body is the pickled function when `spec.source.kind` is SERIALIZED, else empty."""

    app_id: str
    spec: FunctionSpec


@dataclass(frozen=True)
class FunctionRef:
    function_id: str


@dataclass(frozen=True)
class FunctionLookup:
    """A function of a deployed app by their names."""

    app_name: str
    name: str  #: tag within the app
    environment: str


@dataclass(frozen=True)
class FunctionHandle:
    function_id: str
    name: str
    is_generator: bool = False
    web_url: str = ""
    cls: Optional[ClassSpec] = None  #: set for a class
    method: str = ""  #: set when a method of the class was looked up, as "Model.predict"
    app_id: str = ""


@dataclass(frozen=True)
class FunctionStats:
    backlog: int = 0
    num_total_runners: int = 0


@dataclass(frozen=True)
class FunctionKeepWarm:
    """Change how many containers a function keeps ready, until its app ends."""

    function_id: str
    containers: int


@dataclass(frozen=True)
class FunctionOverrides:
    """What `Cls.with_options` changes of a class; None leaves a value as it is."""

    cpu: Optional[float] = None
    cpu_limit: Optional[float] = None  #: with `cpu`
    memory: Optional[int] = None
    memory_limit: Optional[int] = None  #: with `memory`
    gpu: Optional[list[str]] = None
    secret_ids: Optional[list[str]] = None
    volumes: Optional[list[VolumeMount]] = None
    buckets: Optional[list[BucketMount]] = None  #: with `volumes`
    retries: Optional[RetryPolicy] = None
    timeout: Optional[float] = None
    max_containers: Optional[int] = None
    max_concurrent_inputs: Optional[int] = None
    idle_timeout: Optional[float] = None


@dataclass(frozen=True)
class FunctionBind:
    """Ask for the function that serves one set of parameters of a class, with a pool of its own.

    The same class, parameters and overrides give the same function. The body holds the values: a JSON object when the
    class declares its parameters, else the pickled arguments of its constructor; empty: it has none.
    """

    function_id: str  #: of the class
    overrides: FunctionOverrides = field(default_factory=FunctionOverrides)


FUNCTION_CREATE = Method("function.create", FunctionCreate, FunctionHandle, mutating=True)
FUNCTION_BIND = Method("function.bind", FunctionBind, FunctionHandle, mutating=True)
FUNCTION_GET = Method("function.get", FunctionRef, FunctionHandle)
FUNCTION_LOOKUP = Method("function.lookup", FunctionLookup, FunctionHandle)
FUNCTION_STATS = Method("function.stats", FunctionRef, FunctionStats)
FUNCTION_KEEP_WARM = Method("function.keep_warm", FunctionKeepWarm, Empty, mutating=True)
