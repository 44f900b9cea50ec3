"""GPU requests.

A request is a string, `"A100"`, `"a100-80gb:2"` (type and count), or an object of this module. Types are
case-insensitive.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Optional, Union, cast

from .exception import DeprecationError, InvalidError

_TYPES = {
    "T4": "T4",
    "L4": "L4",
    "A100": "A100-40GB",
    "A100-40GB": "A100-40GB",
    "A100-80GB": "A100-80GB",
    "H100": "H100",
    "A10G": "A10G",
    "L40S": "L40S",
    "ANY": "ANY",
}
_A100_SIZES = ("40GB", "80GB")


class _GPUConfig:
    """A GPU type and how many of it a container gets."""

    #: How the type is written in a request.
    gpu_type: str
    #: GPUs per container; at least 1.
    count: int

    def __init__(self, gpu_type: str, count: int) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidError(f"The GPU count must be a whole number of at least 1, not {count!r}.")
        self.gpu_type = gpu_type
        self.count = count

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _GPUConfig):
            return NotImplemented
        return (self.gpu_type, self.count) == (other.gpu_type, other.count)

    def __hash__(self) -> int:
        return hash((self.gpu_type, self.count))

    def __str__(self) -> str:
        return self.gpu_type if self.count == 1 else f"{self.gpu_type}:{self.count}"

    def __repr__(self) -> str:
        return f"GPU({self.gpu_type}, count={self.count})"


class T4(_GPUConfig):
    """NVIDIA T4 (Turing, 16 GB)."""

    def __init__(self, count: int = 1) -> None:
        """Request `count` GPUs per container."""
        super().__init__("T4", count)


class L4(_GPUConfig):
    """NVIDIA L4 (Ada Lovelace, 24 GB)."""

    def __init__(self, count: int = 1) -> None:
        """Request `count` GPUs per container."""
        super().__init__("L4", count)


class A100(_GPUConfig):
    """NVIDIA A100 (Ampere, 40 or 80 GB)."""

    def __init__(self, *, count: int = 1, size: Union[str, None] = None) -> None:
        """Request `count` GPUs per container, with `size` "40GB" (the default) or "80GB" of memory each."""
        if size is not None and size not in _A100_SIZES:
            raise InvalidError(f'The size of an A100 is "40GB" or "80GB", not {size!r}.')
        super().__init__(f"A100-{size or _A100_SIZES[0]}", count)


class A10G(_GPUConfig):
    """NVIDIA A10G (Ampere, 24 GB)."""

    def __init__(self, *, count: int = 1) -> None:
        """Request `count` GPUs per container."""
        super().__init__("A10G", count)


class H100(_GPUConfig):
    """NVIDIA H100 (Hopper, 80 GB)."""

    def __init__(self, *, count: int = 1) -> None:
        """Request `count` GPUs per container."""
        super().__init__("H100", count)


class L40S(_GPUConfig):
    """NVIDIA L40S (Ada Lovelace, 48 GB)."""

    def __init__(self, *, count: int = 1) -> None:
        """Request `count` GPUs per container."""
        super().__init__("L40S", count)


class Any(_GPUConfig):
    """Any GPU, whichever is free."""

    def __init__(self, *, count: int = 1) -> None:
        """Request `count` GPUs per container."""
        super().__init__("ANY", count)


#: What a `gpu` parameter takes.
GPU_T = Union[None, bool, str, _GPUConfig]


def parse_gpu_config(value: GPU_T) -> Optional[_GPUConfig]:
    """Understand the value of a `gpu` parameter; None means no GPU.

    Raises:
        InvalidError: for an unknown type, a bad count or another kind of value.
    """
    if value is None or value is False:
        return None
    if isinstance(value, _GPUConfig):
        return value
    if value is True:
        warnings.warn('gpu=True is deprecated; write gpu="any".', DeprecationError, stacklevel=3)
        return Any()
    if not isinstance(value, str):
        raise InvalidError(f'gpu must be a string such as "A100:2" or an object of modal.gpu, not {value!r}.')
    name, colon, count_text = value.strip().partition(":")
    gpu_type = _TYPES.get(name.strip().upper())
    if gpu_type is None:
        known = ", ".join(sorted(key.lower() for key in _TYPES))
        raise InvalidError(f"Unknown GPU type {name!r}; known types are {known}.")
    if not colon:
        return _GPUConfig(gpu_type, 1)
    if not (count_text.isascii() and count_text.isdigit()):
        raise InvalidError(f'The GPU count after ":" must be a whole number, in {value!r}.')
    return _GPUConfig(gpu_type, int(count_text))


def gpu_requests(value: Union[GPU_T, Sequence[GPU_T]]) -> list[str]:
    """The alternatives of a `gpu` parameter, in order of preference, as `Resources.gpu` carries them."""
    values = cast("Sequence[GPU_T]", value if isinstance(value, (list, tuple)) else [value])
    return [str(config) for config in (parse_gpu_config(item) for item in values) if config is not None]
