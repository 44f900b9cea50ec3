"""Secrets: environment variables. No reply ever holds a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .common import Empty, Method


@dataclass(frozen=True)
class SecretCreate:
    """An anonymous secret that lives as long as its app."""

    app_id: str
    env: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class SecretPut:
    """Create a named secret, or give one new values with `overwrite`."""

    name: str
    environment: str  #: "": the default one
    env: dict[str, str] = field(default_factory=dict, repr=False)
    overwrite: bool = False


@dataclass(frozen=True)
class SecretLookup:
    name: str
    environment: str  #: "": that of `app_id`, else the default one; for a container always its own
    required_keys: list[str] = field(default_factory=list)  #: variables that it must have
    app_id: str = ""  #: what will use it


@dataclass(frozen=True)
class SecretRef:
    secret_id: str


@dataclass(frozen=True)
class SecretInfo:
    name: str
    secret_id: str
    created_at: float  #: seconds since the epoch
    last_used_at: Optional[float] = None  #: when a container or a build last got it, to the minute


@dataclass(frozen=True)
class SecretList:
    environment: str
    secrets: list[SecretInfo] = field(default_factory=list)


@dataclass(frozen=True)
class SecretEnvironment:
    environment: str  #: "": the default one


@dataclass(frozen=True)
class KeyRotated:
    secrets: int  #: how many were encrypted anew


SECRET_CREATE = Method("secret.create", SecretCreate, SecretRef, mutating=True)
SECRET_PUT = Method("secret.put", SecretPut, SecretRef, mutating=True)
SECRET_LOOKUP = Method("secret.lookup", SecretLookup, SecretRef)
SECRET_LIST = Method("secret.list", SecretEnvironment, SecretList)
SECRET_ROTATE_KEY = Method("secret.rotate_key", Empty, KeyRotated, mutating=True)
