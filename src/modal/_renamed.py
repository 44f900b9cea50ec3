"""Parameters that used to have another name."""

from __future__ import annotations

import functools
from typing import Callable

from ._type_vars import P, T


def renamed_parameter(old: str, new: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function be called with the old name of a parameter, too, which gives a DeprecationError warning.

    Args:
        old: what it was called.
        new: what it is called.
    """

    def decorate(func: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(func)
        def renaming(*args: P.args, **kwargs: P.kwargs) -> T:
            if old in kwargs and new not in kwargs:
                import warnings

                from .exception import DeprecationError

                warnings.warn(f"The parameter {old!r} is now called {new!r}.", DeprecationError, stacklevel=3)
                kwargs[new] = kwargs.pop(old)
            return func(*args, **kwargs)

        return renaming

    return decorate
