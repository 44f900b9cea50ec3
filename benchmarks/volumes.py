"""A volume beside the file system below it: one large file, and many small ones."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from results import Row, times
from server import Server

import modal

_ROUNDS = 3
_READ_BUDGET, _WRITE_BUDGET = 0.95, 0.5


def measure(server: Server) -> list[Row]:
    """Rates of writing with a commit, and of reading; the budgets are of sequential ones."""
    import volume_app

    ours: dict[str, list[float]] = {}
    below: dict[str, list[float]] = {}
    with volume_app.app.run(), tempfile.TemporaryDirectory(dir=server.data_dir) as folder:
        volume_app.measure.remote()  # warm
        for _ in range(_ROUNDS):
            for found, figures in (
                (ours, volume_app.measure.remote()),
                (below, volume_app.here(Path(folder))),
            ):
                for what, seconds in figures.items():
                    found.setdefault(what, []).append(seconds)
    modal.Volume.delete("benchmark")
    medians = {what: (statistics.median(ours[what]), statistics.median(below[what])) for what in ours}
    big, small = volume_app.BIG / 1024**2, volume_app.SMALL
    return [
        _row("Volume: write 1 GiB and commit", big, "MiB/s", medians["write big"], _WRITE_BUDGET),
        _row("Volume: read 1 GiB", big, "MiB/s", medians["read big"], _READ_BUDGET),
        _row("Volume: write 10,000 files of 1 KiB and commit", small, "files/s", medians["write small"], None),
        _row("Volume: read 10,000 files", small, "files/s", medians["read small"], None),
    ]


def _row(what: str, amount: float, unit: str, seconds: tuple[float, float], least: float | None) -> Row:
    ours, below = seconds
    ratio = below / ours
    budget = "" if least is None else times(least, "≥")
    met = None if least is None else ratio >= least
    return Row(
        what,
        f"{amount / ours:,.0f} {unit}",
        f"file system below: {amount / below:,.0f} {unit}",
        times(ratio),
        budget,
        met,
    )
