"""`modal.Cls`. Declared; it comes with classes."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Optional, Union

from .._later import not_built_yet
from ..gpu import GPU_T
from .object import Object

if TYPE_CHECKING:
    from .secret import Secret
    from .volume import Volume


class Cls(Object):
    """A class whose methods run in containers. Made by `@app.cls()`."""

    @classmethod
    def from_name(
        cls,
        app_name: str,
        name: str,
        namespace: Any = None,
        environment_name: Optional[str] = None,
        workspace: Optional[str] = None,
    ) -> Cls:
        """A class of a deployed app by its name."""
        not_built_yet("modal.Cls.from_name")

    def with_options(
        self,
        cpu: Optional[Union[float, tuple[float, float]]] = None,
        memory: Optional[Union[int, tuple[int, int]]] = None,
        gpu: GPU_T = None,
        secrets: Collection[Secret] = (),
        volumes: dict[Union[str, os.PathLike[str]], Volume] = {},  # noqa: B006
        retries: Optional[Union[int, Any]] = None,
        timeout: Optional[int] = None,
        concurrency_limit: Optional[int] = None,
        allow_concurrent_inputs: Optional[int] = None,
        container_idle_timeout: Optional[int] = None,
    ) -> Cls:
        """The class with other resources."""
        not_built_yet("modal.Cls.with_options")

    @staticmethod
    def lookup(
        app_name: str,
        name: str,
        namespace: Any = None,
        client: Any = None,
        environment_name: Optional[str] = None,
        workspace: Optional[str] = None,
    ) -> Cls:
        """A class of a deployed app by its name, looked up at once."""
        not_built_yet("modal.Cls.lookup")
