"""Calls over both carriers: every shape, errors, cancellation, deadlines."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import pytest
from wire_harness import ACT, CHAT, DOWNLOAD, ECHO, UPLOAD, Note, Server, until

import modal.exception
from modal._wire.messages.common import Method


@dataclass(frozen=True)
class BadNote:
    number: str


async def echo(ctx, request, body):
    await asyncio.sleep(0)
    return request, body


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
async def test_a_unary_call_returns_response_and_body(server: Server, size):
    server.dispatcher.register(ECHO, echo)
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with server.connected() as client:
        response, got = await client.unary(ECHO, Note("grüße", 7, [1, 2]), body)
    assert response == Note("grüße", 7, [1, 2])
    assert type(got) is bytes
    assert got == body


@pytest.mark.parametrize("kind", ["value", "done future", "pending future", "coroutine"])
async def test_a_handler_may_answer_at_once_or_later(server: Server, kind):
    def handler(ctx, request, body):
        if kind == "value":
            return Note("answer"), b"b"
        if kind == "coroutine":
            return echo(ctx, Note("answer"), b"b")
        future = asyncio.get_running_loop().create_future()
        if kind == "done future":
            future.set_result((Note("answer"), b"b"))
        else:
            asyncio.get_running_loop().call_later(0.01, future.set_result, (Note("answer"), b"b"))
        return future

    server.dispatcher.register(ECHO, handler)
    async with server.connected() as client:
        assert await client.unary(ECHO, Note()) == (Note("answer"), b"b")
        assert await client.unary(ECHO, Note(), timeout=5) == (Note("answer"), b"b")


async def test_concurrent_calls_each_get_their_own_answer(server: Server):
    async def handler(ctx, request, body):
        await asyncio.sleep(0.001 * (request.number % 7))
        return request

    server.dispatcher.register(ECHO, handler)
    async with server.connected() as client:
        answers = await asyncio.gather(*(client.unary(ECHO, Note(number=n)) for n in range(300)))
    assert [answer.number for answer, _ in answers] == list(range(300))


async def test_a_typed_error_arrives_as_its_class(server: Server):
    def handler(ctx, request, body):
        error = modal.exception.NotFoundError("There is no app 'x'.")
        error.data = {"near": ["y"]}
        raise error

    server.dispatcher.register(ECHO, handler)
    async with server.connected() as client:
        with pytest.raises(modal.exception.NotFoundError, match=r"^There is no app 'x'\.$") as caught:
            await client.unary(ECHO, Note())
    assert caught.value.data == {"near": ["y"]}


async def test_an_unexpected_error_is_logged_and_tells_the_client_nothing(server: Server, caplog):
    async def handler(ctx, request, body):
        raise KeyError("the secret is hunter2")

    server.dispatcher.register(ECHO, handler)
    async with server.connected() as client:
        with pytest.raises(modal.exception.InternalFailure) as caught:
            await client.unary(ECHO, Note())
    assert "hunter2" not in str(caught.value)
    (record,) = [record for record in caplog.records if record.name == "intermodal.rpc"]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


@pytest.mark.parametrize("answer", [None, "text", Note(numbers=object()), (Note(), b"", 1), Note(text="\ud800")])
async def test_a_handler_that_answers_nonsense_is_a_logged_internal_failure(server: Server, answer, caplog):
    server.dispatcher.register(ECHO, lambda ctx, request, body: answer)
    async with server.connected() as client:
        with pytest.raises(modal.exception.InternalFailure):
            await client.unary(ECHO, Note())
    assert any(record.name == "intermodal.rpc" for record in caplog.records)


async def test_an_unknown_method_says_that_the_server_is_old(server: Server):
    async with server.connected() as client:
        with pytest.raises(modal.exception.VersionError, match="upgrade Intermodal on the server"):
            await client.unary(ECHO, Note())


async def test_a_malformed_request_fails_only_its_call(server: Server):
    server.dispatcher.register(ECHO, echo)
    wrong = Method("test.echo", dict, Note)
    async with server.connected() as client:
        with pytest.raises(modal.exception.InvalidError, match=r"Note\.number: expected an integer, got text"):
            await client.unary(wrong, BadNote(number="many"))
        assert (await client.unary(ECHO, Note("still there")))[0].text == "still there"


async def test_a_request_over_the_frame_limit_fails_only_its_call(server: Server):
    server.dispatcher.register(ECHO, echo)
    async with server.connected() as client:
        with pytest.raises(modal.exception.RequestSizeError, match="the limit is 16777216"):
            await client.unary(ECHO, Note(), bytes(17 * 1024 * 1024))
        assert (await client.unary(ECHO, Note("still there")))[0].text == "still there"


async def test_a_response_over_the_frame_limit_fails_only_its_call(server: Server):
    server.dispatcher.register(ECHO, lambda ctx, request, body: (Note(), bytes(17 * 1024 * 1024)))
    async with server.connected() as client:
        with pytest.raises(modal.exception.RequestSizeError):
            await client.unary(ECHO, Note())


async def test_cancelling_a_call_cancels_its_handler(server: Server):
    events = []

    async def handler(ctx, request, body):
        events.append("started")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    for method in (ECHO, ACT):
        server.dispatcher.register(method, handler)
    async with server.connected() as client:
        for method in (ECHO, ACT):
            events.clear()
            call = asyncio.create_task(client.unary(method, Note()))
            await until(lambda: events == ["started"])
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await until(lambda: events == ["started", "cancelled"])


async def test_a_deadline_ends_the_call_on_both_sides(server: Server):
    events = []

    async def handler(ctx, request, body):
        assert 0 < ctx.deadline - asyncio.get_running_loop().time() <= 0.05
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    server.dispatcher.register(ECHO, handler)
    async with server.connected() as client:
        with pytest.raises(modal.exception.TimeoutError, match=r"test\.echo took longer than its timeout of 0\.05 s"):
            await client.unary(ECHO, Note(), timeout=0.05)
        await until(lambda: events == ["cancelled"])


async def test_a_client_stream_sends_items_and_gets_one_response(server: Server):
    async def handler(ctx, request, body, stream):
        parts = [(item.number, data) async for item, data in stream]
        return Note(request.text, sum(number for number, _ in parts)), b"".join(data for _, data in parts)

    server.dispatcher.register(UPLOAD, handler)
    async with server.connected() as client, client.stream(UPLOAD, Note("sum")) as stream:
        for number in range(100):
            await stream.send(Note(number=number), b"%d," % number)
        await stream.end()
        response, body = await stream.result()
    assert response == Note("sum", 4950)
    assert body == b"".join(b"%d," % number for number in range(100))


async def test_an_upload_that_the_server_answers_early_goes_quiet(server: Server):
    async def handler(ctx, request, body, stream):
        return Note("have it")

    server.dispatcher.register(UPLOAD, handler)
    async with server.connected() as client, client.stream(UPLOAD, Note()) as stream:
        for _ in range(40):
            await stream.send(Note(), bytes(100_000))
        await stream.end()
        assert (await stream.result())[0].text == "have it"


async def test_a_server_stream_delivers_all_items_and_ends(server: Server):
    async def handler(ctx, request, body, stream):
        for number in range(request.number):
            await stream.send(Note(number=number), body)

    server.dispatcher.register(DOWNLOAD, handler)
    async with server.connected() as client, client.stream(DOWNLOAD, Note(number=5000), b"body") as stream:
        got = [(item.number, body) async for item, body in stream]
    assert got == [(number, b"body") for number in range(5000)]


async def test_an_error_of_a_stream_arrives_after_its_items(server: Server):
    async def handler(ctx, request, body, stream):
        await stream.send(Note(number=1))
        raise modal.exception.RemoteError("Step 2 failed.")

    server.dispatcher.register(DOWNLOAD, handler)
    got = []
    async with server.connected() as client:
        async with client.stream(DOWNLOAD, Note()) as stream:
            got.append((await stream.__anext__())[0].number)
            with pytest.raises(modal.exception.RemoteError, match="Step 2 failed"):
                await stream.__anext__()
    assert got == [1]


async def test_a_duplex_stream_flows_both_ways(server: Server):
    async def handler(ctx, request, body, stream):
        async for item, data in stream:
            await stream.send(Note(number=item.number * 2), data)
        await stream.send(Note("end"))

    server.dispatcher.register(CHAT, handler)
    async with server.connected() as client, client.stream(CHAT, Note()) as stream:
        for number in range(20):
            await stream.send(Note(number=number), b"x")
            item, data = await stream.__anext__()
            assert (item.number, data) == (2 * number, b"x")
        await stream.end()
        assert [item.text async for item, _ in stream] == ["end"]


async def test_leaving_a_stream_cancels_its_handler(server: Server):
    events = []

    async def handler(ctx, request, body, stream):
        try:
            while True:
                await stream.send(Note(), bytes(1000))
        finally:
            events.append("cancelled")

    server.dispatcher.register(DOWNLOAD, handler)
    async with server.connected() as client:
        async with client.stream(DOWNLOAD, Note()) as stream:
            await stream.__anext__()
        await until(lambda: events == ["cancelled"])


async def test_the_deadline_of_a_stream_ends_it_on_both_sides(server: Server):
    events = []

    async def handler(ctx, request, body, stream):
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    server.dispatcher.register(DOWNLOAD, handler)
    async with server.connected() as client:
        with pytest.raises(modal.exception.TimeoutError, match="took longer"):
            async with client.stream(DOWNLOAD, Note(), timeout=0.05) as stream:
                await stream.__anext__()
        await until(lambda: events == ["cancelled"])


async def test_a_stuck_stream_does_not_hold_up_other_calls(server: Server):
    async def handler(ctx, request, body, stream):
        for _ in range(100):
            await stream.send(Note(), bytes(500_000))

    server.dispatcher.register(DOWNLOAD, handler)
    server.dispatcher.register(ECHO, echo)
    async with server.connected() as client, client.stream(DOWNLOAD, Note()) as stream:
        await stream.__anext__()
        for number in range(50):
            assert (await client.unary(ECHO, Note(number=number), timeout=5))[0].number == number
        assert len([None async for _ in stream]) == 99
