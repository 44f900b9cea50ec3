"""The functions that are measured. They do nothing, so that what is left is the platform."""

from __future__ import annotations

import time

import modal

app = modal.App("benchmark", image=modal.Image.debian_slim())


@app.function()
def same(x: int) -> int:
    return x


@app.function()
def cold(x: int) -> int:
    return x


@app.function(concurrency_limit=1)
def gated(seconds: float) -> float:
    """One container answers all inputs; the first holds it for a while, so that the others queue in the server."""
    if seconds:
        time.sleep(seconds)
    return seconds
