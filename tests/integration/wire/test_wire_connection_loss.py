"""Lost connections, restarts, sessions, and what a repeat of a mutating call does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
from wire_harness import ACT, DOWNLOAD, ECHO, Note, Server, until

import modal.exception
from intermodal.control.rpc import LOCAL, Context, Dispatcher, Principal
from intermodal.control.rpc_outcome import Outcome
from intermodal.control.rpc_replies import ReplyMemory
from modal._wire.connection import PROTOCOL
from modal._wire.frames import length_prefixed, pack


def cut_connections(server: Server) -> None:
    """Break every connection without a word, as a network does."""
    for peer in list(server.dispatcher._peers):
        peer.hang_up()


async def test_a_mutating_call_whose_reply_was_lost_acts_once(server: Server):
    acted = []

    async def handler(ctx, request, body):
        acted.append((ctx.key, request.number))
        cut_connections(server)  # the reply cannot be delivered any more
        return Note(number=request.number), b"done"

    server.dispatcher.register(ACT, handler)
    async with server.connected() as client:
        assert await client.unary(ACT, Note(number=5)) == (Note(number=5), b"done")
        assert [number for _, number in acted] == [5]


async def test_clients_that_share_a_session_do_not_share_keys(server: Server):
    acted = []

    def handler(ctx, request, body):
        acted.append(request.number)
        return request

    server.dispatcher.register(ACT, handler)
    async with server.connected("se-a") as one, server.connected("se-a") as two:
        assert (await one.unary(ACT, Note(number=1)))[0].number == 1
        assert (await two.unary(ACT, Note(number=2)))[0].number == 2
    assert acted == [1, 2]


async def test_a_repeat_joins_the_call_that_still_runs(server: Server):
    acted = []
    release = asyncio.Event()

    async def handler(ctx, request, body):
        acted.append(request.number)
        await release.wait()
        return Note("first")

    server.dispatcher.register(ACT, handler)
    async with server.connected() as client:
        call = asyncio.create_task(client.unary(ACT, Note(number=1)))
        await until(lambda: acted)
        first = client._link
        cut_connections(server)
        await until(lambda: client._link not in (None, first))
        release.set()
        assert (await call)[0].text == "first"
    assert acted == [1]


async def test_a_mutating_call_goes_on_when_its_client_is_gone(server: Server):
    events = []
    release = asyncio.Event()

    async def handler(ctx, request, body):
        events.append("started")
        await release.wait()
        events.append("finished")
        return Note("kept")

    server.dispatcher.register(ACT, handler)
    client = server.client()
    await client.open()
    call = asyncio.create_task(client.unary(ACT, Note(), key="k-mine"))
    await until(lambda: events)
    await client.close()
    with pytest.raises(modal.exception.ClientClosed):
        await call
    release.set()
    await until(lambda: events == ["started", "finished"])
    async with server.connected() as again:
        assert (await again.unary(ACT, Note(), key="k-mine"))[0].text == "kept"
    async with server.connected(session="se-2") as other:
        await other.unary(ACT, Note(), key="k-mine")
    assert events == ["started", "finished"] * 2, "keys of other sessions are other keys"


async def test_a_reading_call_is_cancelled_with_its_connection_and_sent_again(server: Server):
    events = []

    async def handler(ctx, request, body):
        events.append("started")
        if len(events) > 1:
            return Note("second")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    server.dispatcher.register(ECHO, handler)
    async with server.connected() as client:
        call = asyncio.create_task(client.unary(ECHO, Note()))
        await until(lambda: events)
        cut_connections(server)
        assert (await call)[0].text == "second"
    assert events == ["started", "cancelled", "started"]


async def test_a_stream_ends_with_a_connection_error_on_both_sides(server: Server):
    events = []

    async def handler(ctx, request, body, stream):
        try:
            await stream.send(Note())
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    server.dispatcher.register(DOWNLOAD, handler)
    async with server.connected() as client:
        async with client.stream(DOWNLOAD, Note()) as stream:
            await stream.__anext__()
            cut_connections(server)
            with pytest.raises(modal.exception.ConnectionError, match="was lost during the call"):
                await stream.__anext__()
        await until(lambda: events == ["cancelled"])


async def test_calls_survive_a_restart_of_the_server(server: Server):
    server.dispatcher.register(ECHO, lambda ctx, request, body: request)
    async with server.connected() as client:
        await client.unary(ECHO, Note())
        await server.stop()
        server.dispatcher = Dispatcher()
        server.dispatcher.register(ECHO, lambda ctx, request, body: Note("new server"))
        call = asyncio.create_task(client.unary(ECHO, Note()))
        await until(lambda: client._connecting is not None)
        await server.start()
        assert (await call)[0].text == "new server"


async def test_a_server_that_stays_away_is_a_connection_error(server: Server):
    async with server.connected(reconnect_timeout=0.1) as client:
        await server.stop()
        with pytest.raises(modal.exception.ConnectionError) as caught:
            await client.unary(ECHO, Note())
    assert str(caught.value).startswith(f"Cannot connect to the server at {server.target}: ")
    assert str(caught.value).endswith(". Check that it is running and that the address is right.")


async def test_open_fails_at_once_when_told_to_try_once(server: Server):
    await server.stop()
    client = server.client(connect_timeout=0)
    with pytest.raises(modal.exception.ConnectionError, match="Cannot connect"):
        await asyncio.wait_for(client.open(), 1)
    await client.close()


async def test_a_call_with_a_timeout_does_not_wait_longer_for_the_server(server: Server):
    async with server.connected() as client:
        await server.stop()
        with pytest.raises(modal.exception.TimeoutError, match=r"0\.05 s"):
            await client.unary(ECHO, Note(), timeout=0.05)


async def test_a_server_that_falls_silent_is_noticed(server: Server):
    released = asyncio.Event()

    async def handler(ctx, request, body):
        await released.wait()
        return Note("answer")

    server.dispatcher.register(ECHO, handler)
    async with server.connected() as client:
        link = client._link
        link.keep_alive(0.02)
        call = asyncio.create_task(client.unary(ECHO, Note()))
        while link._heard:
            await asyncio.sleep(0.005)
        await until(lambda: link._heard)  # the server answers pings while a call runs
        link.received = lambda frame: None  # from here on nothing of the server arrives
        await until(lambda: client._link not in (None, link))
        released.set()
        assert (await call)[0].text == "answer"


async def test_a_closed_client_says_so(server: Server):
    async with server.connected() as client:
        pass
    with pytest.raises(modal.exception.ClientClosed):
        await client.unary(ECHO, Note())
    with pytest.raises(modal.exception.ClientClosed):
        async with client.stream(DOWNLOAD, Note()):
            pass


async def test_a_session_lives_over_connections_and_ends_with_goodbye(server: Server):
    events = []
    server.dispatcher.session_opened.append(
        lambda session, principal: events.append(("opened", session, principal.kind))
    )
    server.dispatcher.session_closed.append(
        lambda session, principal: events.append(("closed", session, principal.kind))
    )
    kind = "local" if server.carrier == "unix" else "token"
    server.dispatcher.register(ECHO, lambda ctx, request, body: Note(ctx.session_id))
    async with server.connected("se-a") as client, server.connected("se-a"):
        cut_connections(server)
        assert (await client.unary(ECHO, Note()))[0].text == "se-a"
        assert events == [("opened", "se-a", kind)]
    await until(lambda: events == [("opened", "se-a", kind), ("closed", "se-a", kind)])


async def test_whoever_fails_when_a_session_ends_keeps_nobody_else_from_hearing_of_it(server: Server):
    events = []
    server.dispatcher.session_closed += [lambda session, principal: 1 // 0, lambda session, _: events.append(session)]
    async with server.connected("se-a"):
        pass
    await until(lambda: events == ["se-a"])


async def test_a_session_is_not_connected_from_its_goodbye_on():
    dispatcher = Dispatcher()
    protocol = dispatcher.connection_protocol(lambda token: LOCAL)
    ours, theirs = socket.socketpair()
    try:
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, ours)
        caller = Context("se-a", LOCAL, None, "", None)
        hello = {"t": "hello", "protocol": PROTOCOL, "version": "1", "session": "se-a", "token": None}
        protocol.data_received(length_prefixed(pack(hello)))
        assert dispatcher.is_connected(caller)
        protocol.data_received(length_prefixed(pack({"t": "bye"})))
        # Whatever another client sends next, even in the same turn of the loop, is not given to this one.
        assert not dispatcher.is_connected(caller)
        transport.close()
    finally:
        theirs.close()
    await dispatcher.close()


async def test_a_session_that_does_not_come_back_is_closed_after_its_grace(server: Server):
    events = []
    server.dispatcher._session_grace = 0.05
    server.dispatcher.session_closed.append(lambda session, principal: events.append(session))
    client = server.client("se-lost")
    await client.open()
    client._closed = True  # it does not reconnect, as a process that was killed
    cut_connections(server)
    await until(lambda: events == ["se-lost"])
    await client.close()


async def test_closing_the_dispatcher_cancels_every_handler(server: Server):
    events = []

    async def handler(ctx, request, body, *stream):
        events.append("started")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    for method in (ECHO, ACT, DOWNLOAD):
        server.dispatcher.register(method, handler)
    client = server.client(reconnect_timeout=0.1)
    await client.open()

    async def follow():
        async with client.stream(DOWNLOAD, Note()) as stream:
            await stream.__anext__()

    calls = [asyncio.create_task(one) for one in (client.unary(ECHO, Note()), client.unary(ACT, Note()), follow())]
    await until(lambda: events.count("started") == 3)
    await server.stop()
    assert events.count("cancelled") == 3
    for call in calls:
        with pytest.raises(modal.exception.ConnectionError):
            await call
    await client.close()


KILLED_SERVER = textwrap.dedent(
    """
    import asyncio, pathlib, sys
    from wire_harness import ACT, Note
    from intermodal.control.rpc import Dispatcher, serve_unix

    async def main(path, journal, wait):
        async def handler(ctx, request, body):
            if wait == "wait":
                pathlib.Path(journal + ".begun").touch()
                await asyncio.Event().wait()
            with open(journal, "a") as file:
                file.write(ctx.key + "\\n")
            return Note("acted")

        dispatcher = Dispatcher()
        dispatcher.register(ACT, handler)
        server = await serve_unix(dispatcher, path)
        await server.serve_forever()

    asyncio.run(main(*sys.argv[1:]))
    """
)


async def test_a_call_in_flight_when_the_server_is_killed_acts_once_after_its_restart(tmp_path):
    from modal._wire.client import RpcClient

    journal = tmp_path / "journal"
    env = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}

    def start(wait: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", KILLED_SERVER, str(tmp_path / "s.sock"), str(journal), wait], env=env
        )

    first = start("wait")
    second = None
    client = RpcClient(f"unix://{tmp_path}/s.sock", session="se-1", connect_timeout=20)
    try:
        await client.open()
        call = asyncio.create_task(client.unary(ACT, Note()))
        await until((tmp_path / "journal.begun").exists)
        first.send_signal(signal.SIGKILL)
        first.wait()
        second = start("go")
        assert (await asyncio.wait_for(call, 20))[0].text == "acted"
        assert journal.read_text().count("\n") == 1
    finally:
        await client.close()
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()


def test_kept_replies_are_bounded_in_number_bytes_and_age():
    memory = ReplyMemory(max_entries=3, max_bytes=4000, max_age=10)
    for number in range(5):
        memory.put((number,), Outcome(number), now=number)
    assert [memory.get((number,), now=5) is not None for number in range(5)] == [False, False, True, True, True]
    assert memory.get((2,), now=12) is None
    memory.put((9,), Outcome(body=bytes(100_000)), now=5)
    assert len(memory) == 1
    memory.put((9,), Outcome(), now=5)
    assert memory.bytes < 1000


def test_principals_with_one_session_id_are_apart():
    dispatcher = Dispatcher()
    assert Principal("container", "co-1") != Principal("container", "co-2")
    dispatcher.joined(dispatcher.peer(lambda token: LOCAL), Principal("container", "co-1"), "se-1")
    dispatcher.joined(dispatcher.peer(lambda token: LOCAL), Principal("container", "co-2"), "se-1")
    assert len(dispatcher._sessions) == 2
