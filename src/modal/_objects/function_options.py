"""The many parameters of `@app.function()`, checked and collapsed into one frozen description."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional, Union

from .._wire.messages.function import Concurrency, Resources, RetryPolicy, Scaling
from ..exception import InvalidError
from ..gpu import gpu_requests
from ..retries import retry_policy

if TYPE_CHECKING:
    from ..schedule import Schedule
    from .image import Image
    from .mount import Mount
    from .mounted import Mounted
    from .secret import Secret

_DAY = 86_400
CLOUDS = ("aws", "gcp", "oci", "auto")


@dataclass(frozen=True)
class FunctionOptions:
    """What the decorator said. It is checked; `not_yet` names what this version cannot do, for the app's start."""

    image: Optional[Image]
    mounts: tuple[Mount, ...]
    secrets: tuple[Secret, ...]
    serialized: bool
    resources: Resources
    timeout: float
    retries: RetryPolicy
    scaling: Scaling
    concurrency: Concurrency
    block_network: bool
    cloud: str
    regions: tuple[str, ...]
    enable_memory_snapshot: bool
    schedule: Optional[Schedule]
    mounted: tuple[Mounted, ...]
    not_yet: tuple[str, ...]


#: Parameters whose parts come later, and what counts as not given.
_NOT_YET = (
    "proxy",
    "i6pn",
    "_experimental_scheduler_placement",
    "_experimental_proxy_ip",
)


#: The parameters of `App.function` that `check_options` looks at, none of them given.
NOTHING: Mapping[str, Any] = {
    "image": None,
    "schedule": None,
    "secrets": (),
    "gpu": None,
    "serialized": False,
    "mounts": (),
    "network_file_systems": {},
    "volumes": {},
    "cpu": None,
    "memory": None,
    "ephemeral_disk": None,
    "proxy": None,
    "retries": None,
    "concurrency_limit": None,
    "allow_concurrent_inputs": None,
    "container_idle_timeout": None,
    "timeout": None,
    "keep_warm": None,
    "cloud": None,
    "region": None,
    "enable_memory_snapshot": False,
    "block_network": False,
    "max_inputs": None,
    "i6pn": None,
    "_experimental_scheduler_placement": None,
    "_experimental_buffer_containers": None,
    "_experimental_proxy_ip": None,
    "_experimental_custom_scaling_factor": None,
}


def check_options(given: Mapping[str, Any]) -> FunctionOptions:
    """Check the parameters of the decorator by name and collapse them.

    Raises:
        InvalidError: a value is out of its range or of the wrong kind; the message names the parameter.
    """
    keep_warm = _count("keep_warm", given["keep_warm"], 0, 10_000) or 0
    limit = _count("concurrency_limit", given["concurrency_limit"], 1, 100_000)
    if limit is not None and limit < keep_warm:
        raise InvalidError(f"concurrency_limit ({limit}) must be at least keep_warm ({keep_warm}).")
    timeout = _count("timeout", given["timeout"], 1, 7 * _DAY)
    idle = _count("container_idle_timeout", given["container_idle_timeout"], 1, _DAY)
    return FunctionOptions(
        image=_one_of("image", given["image"]),
        mounts=_all_of("mounts", given["mounts"]),
        secrets=_all_of("secrets", given["secrets"]),
        serialized=_flag("serialized", given["serialized"]),
        resources=_resources(given),
        timeout=300.0 if timeout is None else float(timeout),
        retries=retry_policy(given["retries"]),
        scaling=Scaling(
            min_containers=keep_warm,
            max_containers=limit,
            buffer_containers=_count(
                "_experimental_buffer_containers", given["_experimental_buffer_containers"], 0, 10_000
            )
            or 0,
            idle_timeout=60.0 if idle is None else float(idle),
            factor=_number(
                "_experimental_custom_scaling_factor", given["_experimental_custom_scaling_factor"], 0.0, 1.0
            ),
        ),
        concurrency=Concurrency(
            max_concurrent_inputs=_count("allow_concurrent_inputs", given["allow_concurrent_inputs"], 1, 1_000) or 1,
            max_inputs=_count("max_inputs", given["max_inputs"], 1, 1_000_000_000),
        ),
        block_network=_flag("block_network", given["block_network"]),
        cloud=_cloud(given["cloud"]),
        regions=_regions(given["region"]),
        enable_memory_snapshot=_flag("enable_memory_snapshot", given["enable_memory_snapshot"]),
        schedule=_schedule(given["schedule"]),
        mounted=_mounted(given["volumes"], given["network_file_systems"]),
        not_yet=tuple(name for name in _NOT_YET if given.get(name)),
    )


def with_batches(
    options: FunctionOptions, name: str, is_generator: bool, batched: Mapping[str, int]
) -> FunctionOptions:
    """Add what `@modal.batched` said.

    Args:
        options: those of the decorator around it.
        name: the function's, for errors.
        is_generator: whether it yields.
        batched: the parameters of `modal.batched`.

    Raises:
        InvalidError: it does not go together with the rest.
    """
    if options.concurrency.max_concurrent_inputs > 1:
        raise InvalidError(
            f"The function {name!r} cannot have both @modal.batched and allow_concurrent_inputs: a container runs one "
            "batch at a time; remove one of the two."
        )
    if is_generator:
        raise InvalidError(f"The function {name!r} is a generator, which @modal.batched cannot gather inputs for.")
    size, wait = batched["max_batch_size"], batched["wait_ms"]
    return replace(options, concurrency=replace(options.concurrency, batch_max_size=size, batch_wait_ms=wait))


def _resources(given: Mapping[str, Any]) -> Resources:
    cpu, cpu_limit = _request_and_limit("cpu", given["cpu"], _cores)
    memory, memory_limit = _request_and_limit("memory", given["memory"], _mebibytes)
    disk = _count("ephemeral_disk", given["ephemeral_disk"], 1, 1 << 24)
    return Resources(
        cpu=0.125 if cpu is None else cpu,
        cpu_limit=cpu_limit,
        memory=128 if memory is None else memory,
        memory_limit=memory_limit,
        ephemeral_disk=disk,
        gpu=gpu_requests(given["gpu"]),
    )


def _request_and_limit(name: str, value: Any, check: Any) -> tuple[Any, Any]:
    """A request, or a pair (request, limit)."""
    if not isinstance(value, (tuple, list)):
        return (None if value is None else check(name, value)), None
    if len(value) != 2:
        raise InvalidError(f"{name} must be a request or a pair (request, limit), not {value!r}.")
    request, limit = check(f"{name}'s request", value[0]), check(f"{name}'s limit", value[1])
    if limit < request:
        raise InvalidError(f"{name}'s limit ({limit}) must be at least its request ({request}).")
    return request, limit


def _cores(name: str, value: Any) -> float:
    cores = _number(name, value, 0.0, 1024.0)
    if not cores:
        raise InvalidError(f"{name} must be a number of cores above 0, not {value!r}.")
    return cores


def _mebibytes(name: str, value: Any) -> int:
    amount = _count(name, value, 1, 1 << 24)
    if amount is None:
        raise InvalidError(f"{name} must be a whole number of MiB, not None.")
    return amount


def _count(name: str, value: Any, low: int, high: int) -> Optional[int]:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidError(f"{name} must be a whole number from {low} to {high}, not {value!r}.")
    return int(value)


def _number(name: str, value: Any, low: float, high: float) -> Optional[float]:
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high:
        raise InvalidError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}.")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidError(f"{name} must be True or False, not {value!r}.")
    return value


def _cloud(value: Any) -> str:
    if value is None:
        return ""
    if value not in CLOUDS:
        raise InvalidError(f"cloud must be one of {', '.join(CLOUDS)}, not {value!r}.")
    return str(value)


def _regions(value: Union[str, Sequence[str], None]) -> tuple[str, ...]:
    regions = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(region, str) and region for region in regions):
        raise InvalidError(f"region must be a name or a list of names, not {value!r}.")
    return regions


def _mounted(volumes: Any, network_file_systems: Any) -> tuple[Mounted, ...]:
    if volumes == {} and network_file_systems == {}:  # nothing to import the parts for
        return ()
    from .mounted import check_mounted

    return check_mounted(volumes, network_file_systems)


def _one_of(name: str, value: Any) -> Any:
    """Check an `image` parameter."""
    from .image import Image

    if value is not None and not isinstance(value, Image):
        raise InvalidError(f"{name} must be a modal.Image, not {value!r}.")
    return value


def _schedule(value: Any) -> Optional[Schedule]:
    if value is None:
        return None
    from ..schedule import Cron, Period

    if not isinstance(value, (Cron, Period)):
        raise InvalidError(
            f'schedule must be a schedule such as modal.Cron("0 9 * * 4") or modal.Period(days=1), not {value!r}.'
        )
    return value


def _all_of(name: str, values: Any) -> tuple[Any, ...]:
    """Check a `mounts` or `secrets` parameter."""
    from .mount import Mount
    from .secret import Secret

    cls: type[Any] = {"mounts": Mount, "secrets": Secret}[name]
    if isinstance(values, cls) or not isinstance(values, (list, tuple)):
        raise InvalidError(f"{name} must be a list of modal.{cls.__name__} objects, not {values!r}.")
    for value in values:
        if not isinstance(value, cls):
            raise InvalidError(f"{name} must be a list of modal.{cls.__name__} objects, but it has {value!r}.")
    return tuple(values)
