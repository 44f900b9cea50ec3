"""The type variables of the public API.

`ParamSpec` came with Python 3.10 and containers have no `typing_extensions`, so before that a plain type variable
stands in at run time; type checkers always see the real one.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")
else:
    P = getattr(typing, "ParamSpec", TypeVar)("P")
    Concatenate = getattr(typing, "Concatenate", None)

T = TypeVar("T")
S = TypeVar("S")
#: What `.remote()` gives.
ReturnType = TypeVar("ReturnType", covariant=True)
#: What calling the user's own function gives: a coroutine for an `async def`.
OriginalReturnType = TypeVar("OriginalReturnType", covariant=True)

__all__ = ["Any", "Concatenate", "OriginalReturnType", "P", "ReturnType", "S", "T"]
