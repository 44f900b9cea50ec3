"""The tree of calls that a function call made."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from ._wire.messages.call import GraphNode, Status


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


def tree_of(nodes: Iterable[GraphNode]) -> list[InputInfo]:
    """Put nodes, each after its parent, together; returns those without one."""
    roots: list[InputInfo] = []
    by_id: dict[str, InputInfo] = {}
    for node in nodes:
        info = by_id[node.input_id] = InputInfo(
            input_id=node.input_id,
            function_call_id=node.call_id,
            task_id=node.container_id,
            status=_status_of(node.status),
            function_name=node.function_name,
            module_name=node.module_name,
            children=[],
        )
        parent = by_id.get(node.parent_input_id)
        (roots if parent is None else parent.children).append(info)
    return roots


def _status_of(status: Optional[Status]) -> InputStatus:
    if status is None:
        return InputStatus.PENDING
    # A container that died is the platform's word for a failure that the user sees as one.
    return InputStatus.FAILURE if status.value == "internal_failure" else InputStatus[status.name]
