"""The tree of calls that a function call made."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class InputStatus(enum.IntEnum):
    """How an input ended, or that it has not."""

    PENDING = 0
    SUCCESS = 1
    FAILURE = 2
    TERMINATED = 3
    TIMEOUT = 4
    INIT_FAILURE = 5

    @classmethod
    def _missing_(cls, value: object) -> InputStatus:
        """A status that this version does not know counts as pending."""
        return cls.PENDING


@dataclass
class InputInfo:
    """An input and the inputs that it called."""

    input_id: str
    function_call_id: str
    task_id: str
    status: InputStatus
    function_name: str
    module_name: str
    children: list[InputInfo]
