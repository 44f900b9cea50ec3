"""Functions that run in containers, and calls of them."""

from __future__ import annotations

from ._objects.function import Function, FunctionStats
from ._objects.function_call import FunctionCall, gather

__all__ = ["Function", "FunctionCall", "FunctionStats", "gather"]
