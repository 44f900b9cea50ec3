"""Rows of the result table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measurement beside its peer and its budget, as text; `met` is None where there is no budget."""

    what: str
    ours: str
    peer: str = ""
    ratio: str = ""
    budget: str = ""
    met: bool | None = None

    def cells(self) -> list[str]:
        met = "" if self.met is None else "met" if self.met else "**missed**"
        return [self.what, self.ours, self.peer, self.ratio, self.budget, met]


def table(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = ["| what | ours | peer | ratio | budget | |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    return "\n".join(lines)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]


def times(ratio: float, sign: str = "") -> str:
    """A ratio, after ``≤`` or ``≥`` for a budget."""
    return f"{sign} {ratio:.3g} \N{MULTIPLICATION SIGN}".strip()


def ms(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def interleave(rounds: int, measures: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Take turns for `rounds` rounds; the median of each."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            values[name].append(measure())
    return {name: statistics.median(one) for name, one in values.items()}
