"""Prints ``docs/state-machines.md`` from the tables.

Run ``python -m intermodal.machines.diagram > docs/state-machines.md`` after changing one.
"""

from __future__ import annotations

import enum
import inspect
import sys
from collections.abc import Mapping
from typing import Any

from . import app, call, container

_Table = Mapping[tuple[Any, Any], enum.Enum]

#: title, module whose docstring introduces it, first states, table
_MACHINES: tuple[tuple[str, Any, tuple[enum.Enum, ...], _Table], ...] = (
    ("App", app, app.FIRST, app.APP_TABLE),
    ("Call", call, (call.CallState.OPEN,), call.CALL_TABLE),
    ("Container", container, (container.ContainerState.STARTING,), container.CONTAINER_TABLE),
)


def page() -> str:
    """The whole page, in Markdown with Mermaid diagrams."""
    parts = [
        "# State machines\n",
        "Generated from the tables in `src/intermodal/machines/`; do not edit. After changing one, run",
        "`python -m intermodal.machines.diagram > docs/state-machines.md`.",
        "An event that a state has no arrow for is an error, which names the object's history.\n",
    ]
    for title, module, firsts, table in _MACHINES:
        parts.append(f"## {title}\n")
        parts.append(f"{inspect.getdoc(module)}\n")
        parts.append(_diagram(firsts, table))
    return "\n".join(parts)


def _diagram(firsts: tuple[enum.Enum, ...], table: _Table) -> str:
    """One state diagram; events that lead from one state to the same other share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), target in table.items():
        arrows.setdefault((state.value, target.value), []).append(event.value)
    lines = ["```mermaid", "stateDiagram-v2", *(f"    [*] --> {first.value}" for first in firsts)]
    lines += [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in arrows.items()]
    leaving = {source for source, target in arrows if source != target}
    states = dict.fromkeys(target for _, target in arrows)
    lines += [f"    {state} --> [*]" for state in states if state not in leaving]
    return "\n".join([*lines, "```\n"])


if __name__ == "__main__":
    sys.stdout.write(page())
