"""Images: looking up a built one, and building again after the last layer changed."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

from results import Row, ms
from server import Server

_ROUNDS = 20
_SLOW_STEP = 3  # seconds that the layer takes which must not run again


def measure(server: Server) -> list[Row]:
    """The rows of a cached image and of a changed last layer."""
    from modal._sync import run

    return run(_measure(server))


async def _measure(server: Server) -> list[Row]:
    from modal._wire.client import RpcClient
    from modal._wire.messages.image import IMAGE_BUILD, ImageLayer, ImageSpec, LayerKind

    client = RpcClient(f"unix://{server.data_dir / 'run' / 'server.sock'}", session="se-benchmark")
    await client.open()

    async def build(*commands: str) -> tuple[float, list[str]]:
        """Seconds, and the steps that ran."""
        layers = [ImageLayer(LayerKind.DEBIAN_SLIM, "3.11")]
        layers += [ImageLayer(LayerKind.COMMANDS, commands=[command]) for command in commands]
        steps: list[str] = []
        started = time.perf_counter()
        async with client.stream(IMAGE_BUILD, ImageSpec(layers)) as events:
            item: Any
            async for item, _ in events:
                steps += [item.step] if item.step else []
        return time.perf_counter() - started, steps

    unique = os.urandom(6).hex()
    slow = f"RUN sleep {_SLOW_STEP} && echo {unique}"
    try:
        await build(slow, "RUN echo one")
        changed, ran = await build(slow, "RUN echo two")
        looked_up = [(await build(slow, "RUN echo two"))[0] for _ in range(_ROUNDS)]
    finally:
        await client.close()
    cached = statistics.median(looked_up)
    is_only_last = changed < _SLOW_STEP and not any(unique in step for step in ran)
    return [
        Row("cached image lookup", ms(cached), "", "", "≤ 100 ms", cached <= 0.1),
        Row("rebuild after a changed last layer", ms(changed), "", "", "only that layer", is_only_last),
    ]
