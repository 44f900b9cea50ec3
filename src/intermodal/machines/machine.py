"""What every machine here is made of: a table of legal transitions, and an error that tells an object's story."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from typing import Generic, TypeVar

S = TypeVar("S", bound=enum.Enum)
E = TypeVar("E", bound=enum.Enum)
_REMEMBERED = 16


class IllegalTransition(Exception):
    """An event that the object's state does not allow. The text holds the object's history."""


class Machine(Generic[S, E]):
    """One object's state, which changes only as `table` allows.

    Args:
        subject: the object's id, for errors.
        state: where it begins.
        table: every legal (state, event) pair and the state it leads to.
    """

    __slots__ = ("_history", "_table", "state", "subject")

    def __init__(self, subject: str, state: S, table: Mapping[tuple[S, E], S]) -> None:
        self.subject = subject
        self.state = state
        self._table = table
        self._history: deque[tuple[E, S]] | None = None

    def on(self, event: E) -> S:
        """Move along the table and return the new state.

        Raises:
            IllegalTransition: the table has no such pair; the state is unchanged.
        """
        state = self._table.get((self.state, event))
        if state is None:
            raise IllegalTransition(
                f"{self.subject} is {self.state.value} and cannot take {event.value!r}. Its history: {self.history()}."
            )
        if self._history is None:
            self._history = deque(maxlen=_REMEMBERED)
        self._history.append((event, self.state))
        self.state = state
        return state

    def allows(self, event: E) -> bool:
        """Whether the table has a transition for `event` from here."""
        return (self.state, event) in self._table

    def history(self) -> str:
        """The latest states and the events that ended them, e.g. ``starting -ready-> ready``."""
        steps = [f"{state.value} -{event.value}-> " for event, state in self._history or ()]
        return "".join(steps) + str(self.state.value)
