"""Queued inputs: what each costs the server, and whether many of them slow it down.

One container takes all inputs. The first one holds it until all others are in the server's queue; then the time from
the second output to the last is taken. Inputs go straight to the RPC that `.map` uses, since `.map` itself never has
more than a few thousand on their way.

    queue_depth.py N    for one depth, in a client's environment; prints JSON
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from results import Row, times
from server import HERE, Server, unshared

from modal._calls.payload import pickle_arguments

DEPTHS = (10_000, 100_000, 1_000_000)
_BATCH = 1_000
_ARGUMENT = pickle_arguments("gated", (0.0,), {}, False)  # what every input but the first carries


def measure(server: Server, deepest: int) -> list[Row]:
    """A row for memory and one for speed at each depth up to `deepest`."""
    rows: list[Row] = []
    base = 0.0
    for depth in (one for one in DEPTHS if one <= deepest):
        command = [sys.executable, str(HERE / "queue_depth.py"), str(depth), str(server.pid)]
        out = subprocess.run(command, env=server.env, check=True, stdout=subprocess.PIPE, text=True).stdout
        result = json.loads(out)
        rate, per_input = result["rate"], result["memory"] / depth - len(_ARGUMENT)
        if not base:
            base = rate
            rows.append(Row(f"{depth:,} queued inputs: outputs/s", f"{rate:,.0f}/s"))
            continue
        ratio = rate / base
        memory = f"{per_input:,.0f} B"
        rows += [
            Row(
                f"{depth:,} queued inputs: outputs/s",
                f"{rate:,.0f}/s",
                f"at {DEPTHS[0]:,}: {base:,.0f}/s",
                times(ratio),
                times(0.8, "≥"),
                ratio >= 0.8,
            ),
            Row(f"{depth:,} queued inputs: memory each", memory, "", "", "≤ 1 KiB", per_input <= 1024),
        ]
    return rows


async def _fill_and_drain(function_id: str, client: Any, depth: int, server_pid: int) -> dict[str, float]:
    from modal._wire.messages.call import CALL_MAP, CallMap, Input, InputBatch, Status

    hold = pickle_arguments("gated", (5.0 + depth / 10_000,), {}, False)
    before = unshared(server_pid)
    filled = first = 0.0
    memory = got = 0
    async with client.stream(CALL_MAP, CallMap(function_id)) as stream:

        async def fill() -> None:
            nonlocal filled, memory
            for start in range(0, depth, _BATCH):
                bodies = [hold if index == 0 else _ARGUMENT for index in range(start, min(depth, start + _BATCH))]
                records = [Input(start + i, len(body)) for i, body in enumerate(bodies)]
                await stream.send(InputBatch(records), b"".join(bodies))
            await stream.send(InputBatch(last=True))
            await stream.end()
            await asyncio.sleep(1.0)  # the journal writes the last of them
            filled, memory = time.perf_counter(), unshared(server_pid) - before

        filling = asyncio.ensure_future(fill())
        async for batch, _ in stream:
            got += sum(one.status is Status.SUCCESS for one in batch.outputs)
            if got and not first:
                first = time.perf_counter()
            if batch.done:
                break
        last = time.perf_counter()
        await filling
    assert got == depth, f"{got} outputs came for {depth} inputs"
    assert first > filled, "the gate opened before the queue was full"
    return {"rate": (depth - 1) / (last - first), "memory": memory}


def main() -> None:
    import bench_app

    from modal._sync import run
    from modal._wire.client import RpcClient

    depth, server_pid = int(sys.argv[1]), int(sys.argv[2])
    socket = Path(os.environ["INTERMODAL_DATA_DIR"]) / "run" / "server.sock"

    async def body(function_id: str) -> dict[str, float]:
        client = RpcClient(f"unix://{socket}", session="se-benchmark")
        await client.open()
        try:
            return await _fill_and_drain(function_id, client, depth, server_pid)
        finally:
            await client.close()

    with bench_app.app.run():
        bench_app.gated.remote(0.0)
        print(json.dumps(run(body(bench_app.gated.object_id))))


if __name__ == "__main__":
    main()
