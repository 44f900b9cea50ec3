"""Dicts: entries by opaque keys. The body holds keys and inline values, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .blob import BlobRef
from .common import Empty, Method, Shape

KEY_LIMIT = 1024 * 1024  #: bytes of a pickled key
VALUE_LIMIT = 100 * 1024 * 1024  #: bytes of a pickled value; above INLINE_LIMIT it travels as a blob


@dataclass(frozen=True)
class DictRef:
    """Names the dict, and in the body the key where one is meant."""

    dict_id: str


@dataclass(frozen=True)
class DictEntry:
    """How one entry lies in the body: the key, then the value unless that is a blob."""

    key: int  #: bytes; 0 in a list of values
    value: int = 0  #: bytes; 0 with `blob`, and in a list of keys
    blob: Optional[BlobRef] = None


@dataclass(frozen=True)
class DictPut:
    dict_id: str
    entries: list[DictEntry] = field(default_factory=list)
    if_absent: bool = False  #: leave keys alone that are there


@dataclass(frozen=True)
class DictPop:
    """The body is the key."""

    dict_id: str
    value: bool = True  #: send it


@dataclass(frozen=True)
class DictValue:
    """The body is the inline value."""

    found: bool
    blob: Optional[BlobRef] = None


@dataclass(frozen=True)
class DictFound:
    found: bool


@dataclass(frozen=True)
class DictLength:
    entries: int


@dataclass(frozen=True)
class DictScan:
    """Every entry that there is from the beginning to the end of the scan."""

    dict_id: str
    keys: bool = True
    values: bool = True


@dataclass(frozen=True)
class DictPart:
    entries: list[DictEntry] = field(default_factory=list)


DICT_GET = Method("dict.get", DictRef, DictValue)
DICT_CONTAINS = Method("dict.contains", DictRef, DictFound)
DICT_PUT = Method("dict.put", DictPut, Empty, mutating=True)
DICT_POP = Method("dict.pop", DictPop, DictValue, mutating=True)
DICT_CLEAR = Method("dict.clear", DictRef, Empty, mutating=True)
DICT_LEN = Method("dict.len", DictRef, DictLength)
DICT_SCAN = Method("dict.scan", DictScan, DictPart, Shape.SERVER_STREAM)
