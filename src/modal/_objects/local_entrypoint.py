"""`@app.local_entrypoint()`: where `modal run` begins, in the user's process."""

from __future__ import annotations

from typing import Any, Callable, Generic

from .._type_vars import OriginalReturnType, P


class LocalEntrypoint(Generic[P, OriginalReturnType]):
    """A function that runs here and starts others. Calling it calls the function."""

    def __init__(self, raw_f: Callable[P, OriginalReturnType], name: str) -> None:
        self._raw_f = raw_f
        self.name = name
        self.__doc__ = raw_f.__doc__
        self.__wrapped__ = raw_f

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> OriginalReturnType:
        return self._raw_f(*args, **kwargs)

    def get_raw_f(self) -> Callable[P, OriginalReturnType]:
        """The Python function that was decorated."""
        return self._raw_f

    def __repr__(self) -> str:
        return f"modal.LocalEntrypoint {self.name}"

    def __reduce__(self) -> Any:
        return _unavailable, (self.name,)


def _unavailable(name: str) -> str:
    """What an entrypoint becomes in another process, where it cannot run: its name."""
    return name
