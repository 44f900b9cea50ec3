"""Dictionaries that functions share."""

from __future__ import annotations

from ._objects.dict import Dict

__all__ = ["Dict"]
