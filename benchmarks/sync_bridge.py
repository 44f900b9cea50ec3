"""What a blocking call costs more than the async call it makes: the budget is 50 µs.

usage: sync_bridge.py [calls]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from modal._sync import blocking, run


async def work() -> int:
    """As an RPC does: one trip through the event loop."""
    await asyncio.sleep(0)
    return 1


async def measure_async(calls: int) -> list[float]:
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        await work()
        times.append(time.perf_counter() - started)
    return times


def measure_blocking(calls: int) -> list[float]:
    call = blocking(work)
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    measure_blocking(1000)
    alone = statistics.median(run(measure_async(calls)))
    bridged = statistics.median(measure_blocking(calls))
    extra = (bridged - alone) * 1e6
    print(f"async call    {alone * 1e6:8.1f} µs")
    print(f"blocking call {bridged * 1e6:8.1f} µs")
    print(f"the bridge    {extra:8.1f} µs (budget 50 µs: {'met' if extra <= 50 else 'missed'})")


if __name__ == "__main__":
    main()
