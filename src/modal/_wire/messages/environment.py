"""Environments: what every name belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .common import Empty, Method


@dataclass(frozen=True)
class EnvironmentInfo:
    name: str
    web_suffix: str  #: part of the web addresses of its apps; "" for none
    is_default: bool
    created_at: float  #: seconds since the epoch


@dataclass(frozen=True)
class EnvironmentList:
    environments: list[EnvironmentInfo] = field(default_factory=list)


@dataclass(frozen=True)
class EnvironmentRef:
    name: str


@dataclass(frozen=True)
class EnvironmentUpdate:
    """What is None stays as it is."""

    name: str
    new_name: Optional[str] = None
    new_web_suffix: Optional[str] = None


ENVIRONMENT_LIST = Method("environment.list", Empty, EnvironmentList)
ENVIRONMENT_GET = Method("environment.get", EnvironmentRef, EnvironmentInfo)
ENVIRONMENT_CREATE = Method("environment.create", EnvironmentRef, EnvironmentInfo, mutating=True)
ENVIRONMENT_UPDATE = Method("environment.update", EnvironmentUpdate, EnvironmentInfo, mutating=True)
ENVIRONMENT_DELETE = Method("environment.delete", EnvironmentRef, Empty, mutating=True)
