"""The wire against grpc.aio and bare asyncio streams, in one run on one machine.

    .venv/bin/python benchmarks/wire.py [--rounds 3] [--seconds 1.0] [--json FILE]

Every contender has its server and its client in a process of its own, joined by a Unix socket (the WebSocket one by
loopback TCP). Measured: the median time of a unary call with 64 bytes each way, one at a time; messages of 64 bytes
streamed from server to client; bytes streamed in messages of 1 MiB. Rounds take turns between contenders, and the
median round counts. grpcio is installed into its own environment below `benchmarks/.peers` the first time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEER = HERE / ".peers" / "grpc"
SMALL = b"x" * 64
LARGE = b"x" * (1024 * 1024)

#: One call; and a stream of messages of the given size, for as long as it is read.
Call = Callable[[], Awaitable[Any]]
Stream = Callable[[int], AsyncGenerator[Any, None]]


@dataclass(frozen=True)
class Contender:
    name: str
    kind: str
    uvloop: bool = False
    websocket: bool = False


CONTENDERS = {
    "intermodal": Contender("intermodal, Unix socket", "intermodal"),
    "intermodal-uvloop": Contender("intermodal, Unix socket, uvloop server", "intermodal", uvloop=True),
    "intermodal-websocket": Contender(
        "intermodal, WebSocket, uvloop server", "intermodal", uvloop=True, websocket=True
    ),
    "grpc": Contender("grpc.aio, Unix socket", "grpc"),
    "streams": Contender("bare asyncio streams, Unix socket", "streams"),
}


# intermodal


def _methods() -> tuple[Any, Any, Any]:
    from modal._wire.messages.blob import BlobRef
    from modal._wire.messages.common import Empty, Method, Shape

    call = Method("bench.call", BlobRef, BlobRef)
    return call, Method("bench.stream", BlobRef, Empty, Shape.SERVER_STREAM), BlobRef


async def serve_intermodal(address: str, contender: Contender) -> None:
    from intermodal.control.rpc import Dispatcher, Principal, serve_unix
    from intermodal.control.rpc_websocket import websocket_route
    from modal._wire.messages.common import Empty

    call, stream, _ = _methods()

    async def send_all(ctx: Any, request: Any, body: bytes, out: Any) -> None:
        data = bytes(request.size)
        while True:
            await out.send(Empty(), data)

    dispatcher = Dispatcher()
    dispatcher.register(call, lambda ctx, request, body: (request, body))
    dispatcher.register(stream, send_all)
    if contender.websocket:
        import uvicorn
        from starlette.applications import Starlette

        app = Starlette(routes=[websocket_route(dispatcher, lambda address: lambda token: Principal("token"))])
        port = int(address)
        config = uvicorn.Config(app, port=port, lifespan="off", log_level="error", ws="websockets-sansio")
        await uvicorn.Server(config).serve()
    else:
        server = await serve_unix(dispatcher, address)
        await server.serve_forever()


@contextlib.asynccontextmanager
async def connect_intermodal(address: str, contender: Contender) -> AsyncIterator[tuple[Call, Stream]]:
    from modal._wire.client import RpcClient

    call, stream, blob_ref = _methods()
    target = f"http://127.0.0.1:{address}" if contender.websocket else f"unix://{address}"
    client = RpcClient(target, session="se-bench")
    await client.open()
    request = blob_ref("0" * 16, 64)

    async def read(size: int) -> AsyncGenerator[Any, None]:
        async with client.stream(stream, blob_ref("", size)) as items:
            async for item in items:
                yield item

    yield lambda: client.unary(call, request, SMALL), read
    await client.close()


# grpc.aio, with opaque bytes


async def serve_grpc(address: str, contender: Contender) -> None:
    import grpc

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    async def send_all(request: bytes, context: Any) -> AsyncIterator[bytes]:
        data = bytes(int(request))
        while True:
            yield data

    handlers = {
        "call": grpc.unary_unary_rpc_method_handler(echo),
        "stream": grpc.unary_stream_rpc_method_handler(send_all),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    server.add_insecure_port(f"unix:{address}")
    await server.start()
    await server.wait_for_termination()


@contextlib.asynccontextmanager
async def connect_grpc(address: str, contender: Contender) -> AsyncIterator[tuple[Call, Stream]]:
    import grpc

    async with grpc.aio.insecure_channel(f"unix:{address}") as channel:
        call = channel.unary_unary("/bench/call")
        stream = channel.unary_stream("/bench/stream")

        async def read(size: int) -> AsyncGenerator[Any, None]:
            messages = stream(str(size).encode())
            async for message in messages:
                yield message
            messages.cancel()

        yield lambda: call(SMALL), read


# bare asyncio streams: a length and as many bytes


async def serve_streams(address: str, contender: Contender) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                data = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
                if data != SMALL:
                    message = int(data).to_bytes(4, "big") + bytes(int(data))
                    while True:
                        writer.write(message)
                        await writer.drain()
                writer.write(len(data).to_bytes(4, "big") + data)
        writer.close()

    server = await asyncio.start_unix_server(serve, address)
    await server.serve_forever()


@contextlib.asynccontextmanager
async def connect_streams(address: str, contender: Contender) -> AsyncIterator[tuple[Call, Stream]]:
    reader, writer = await asyncio.open_unix_connection(address)

    async def call() -> bytes:
        writer.write(len(SMALL).to_bytes(4, "big") + SMALL)
        return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))

    async def read(size: int) -> AsyncGenerator[bytes, None]:
        items, request = await asyncio.open_unix_connection(address)
        asked = str(size).encode()
        request.write(len(asked).to_bytes(4, "big") + asked)
        try:
            while True:
                yield await items.readexactly(int.from_bytes(await items.readexactly(4), "big"))
        finally:
            request.transport.abort()

    yield call, read
    writer.close()


SERVE = {"intermodal": serve_intermodal, "grpc": serve_grpc, "streams": serve_streams}
CONNECT = {"intermodal": connect_intermodal, "grpc": connect_grpc, "streams": connect_streams}


# Measuring


async def measure(contender: Contender, address: str, seconds: float) -> dict[str, float]:
    """Run one round: warm up, then each measurement for `seconds`."""
    async with CONNECT[contender.kind](address, contender) as (call, stream):
        for _ in range(200):
            await call()
        times = []
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            await call()
            times.append(time.perf_counter() - begin)
        return {
            "unary_ms": statistics.median(times) * 1000,
            "messages_per_s": await rate(stream(len(SMALL)), seconds),
            "mib_per_s": await rate(stream(len(LARGE)), seconds),
        }


async def rate(items: AsyncGenerator[Any, None], seconds: float) -> float:
    """Return items per second."""
    count = 0
    await items.__anext__()
    begin = time.perf_counter()
    async for _ in items:
        count += 1
        if count % 16 == 0 and time.perf_counter() - begin > seconds:
            break
    passed = time.perf_counter() - begin
    await items.aclose()
    return count / passed


# Orchestration


def peer_python() -> str:
    """Return the interpreter of the environment that has grpcio, made the first time."""
    python = PEER / "bin" / "python"
    if not python.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(PEER)], check=True)
        subprocess.run([*uv, "pip", "install", "-q", "--python", str(python), "grpcio>=1.60,<2"], check=True)
    return str(python)


def free_port() -> str:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def run_round(key: str, seconds: float) -> dict[str, float]:
    """Start the contender's server, measure it from a client process, and stop it."""
    contender = CONTENDERS[key]
    python = peer_python() if contender.kind == "grpc" else sys.executable
    with tempfile.TemporaryDirectory() as directory:
        address = free_port() if contender.websocket else f"{directory}/s.sock"
        server = subprocess.Popen([python, __file__, "--serve", key, address])
        try:
            out = subprocess.run(
                [python, __file__, "--measure", key, address, "--seconds", str(seconds)],
                check=True,
                stdout=subprocess.PIPE,
                timeout=60 + 10 * seconds,
            ).stdout
        finally:
            server.kill()
            server.wait()
    result: dict[str, float] = json.loads(out)
    return result


async def measure_when_up(contender: Contender, address: str, seconds: float) -> dict[str, float]:
    for _ in range(500):
        with contextlib.suppress(OSError):
            if contender.websocket:
                _, writer = await asyncio.open_connection("127.0.0.1", int(address))
            else:
                _, writer = await asyncio.open_unix_connection(address)
            writer.close()
            return await measure(contender, address, seconds)
        await asyncio.sleep(0.02)
    raise SystemExit(f"the server of {contender.name} did not start")


def table(results: dict[str, dict[str, float]]) -> str:
    base = results["grpc"]
    lines = [
        "| contender | unary p50, ms | of grpc.aio | messages/s | times grpc.aio | MiB/s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key, result in results.items():
        lines.append(
            f"| {CONTENDERS[key].name} | {result['unary_ms']:.3f} | {result['unary_ms'] / base['unary_ms']:.2f} "
            f"| {result['messages_per_s']:,.0f} | {result['messages_per_s'] / base['messages_per_s']:.1f} "
            f"| {result['mib_per_s']:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement in a round")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--serve", nargs=2, metavar=("CONTENDER", "ADDRESS"), help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, metavar=("CONTENDER", "ADDRESS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        key, address = options.serve
        serving = SERVE[CONTENDERS[key].kind](address, CONTENDERS[key])
        if CONTENDERS[key].uvloop:
            import uvloop

            uvloop.run(serving)
        else:
            asyncio.run(serving)
        return
    if options.measure:
        key, address = options.measure
        print(json.dumps(asyncio.run(measure_when_up(CONTENDERS[key], address, options.seconds))))
        return
    peer_python()
    rounds: dict[str, list[dict[str, float]]] = {key: [] for key in CONTENDERS}
    for _ in range(options.rounds):
        for key in CONTENDERS:
            rounds[key].append(run_round(key, options.seconds))
    results = {
        key: {name: statistics.median(one[name] for one in ones) for name in ones[0]} for key, ones in rounds.items()
    }
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
