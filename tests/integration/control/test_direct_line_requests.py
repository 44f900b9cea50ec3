"""What the server answers to clients with direct lines, through the wire alone."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from test_call_path import Client, client, settings  # noqa: F401 - fixtures

from intermodal.settings import Settings
from modal._serialization import deserialize, serialize
from modal._wire.messages.call import CALL_DIRECT, CALL_RUN, CallDirect, CallRun, DirectLine, Input, Status
from modal.exception import InvalidError, NotFoundError


async def get_line(client: Client, function_id: str) -> DirectLine:  # noqa: F811
    for _ in range(200):
        await client.run(function_id, 1)
        line, _ = await client.rpc.unary(CALL_DIRECT, CallDirect(function_id))
        if line.path:
            return line
    raise AssertionError("no line was offered")


async def run_sent(client: Client, function_id: str, call_id: str, line_id: str) -> object:  # noqa: F811
    payload = serialize(((5,), {}))
    request = CallRun(function_id, Input(0, len(payload)), call_id=call_id, line_id=line_id)
    output, data = await client.rpc.unary(CALL_RUN, request, payload, timeout=20)
    assert output.status is Status.SUCCESS
    return deserialize(data)


@pytest.fixture
async def double(client: Client) -> str:  # noqa: F811
    def double(x: int) -> int:
        return 2 * x

    return await client.function(double, timeout=2.0)


async def test_only_this_user_may_open_the_socket_for_lines(client: Client, double: str, settings: Settings) -> None:  # noqa: F811
    line = await get_line(client, double)
    assert Path(line.path) == settings.direct_socket
    assert stat.S_IMODE(Path(line.path).stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("ticket", ["0" * 32, "short", "\0" * 32, "0" * 33, "0" * 4096])
async def test_a_wrong_ticket_opens_nothing(client: Client, double: str, ticket: str) -> None:  # noqa: F811
    line = await get_line(client, double)
    reader, writer = await asyncio.open_unix_connection(line.path)
    writer.write(ticket.encode())
    if len(ticket) < 32:
        writer.write_eof()
    try:
        assert await asyncio.wait_for(reader.read(), 10) == b""
    except ConnectionResetError:
        pass
    writer.close()


async def test_a_ticket_is_good_once(client: Client, double: str) -> None:  # noqa: F811
    line = await get_line(client, double)
    reader, writer = await asyncio.open_unix_connection(line.path)
    writer.write(line.ticket.encode())
    assert b"Ready" in await asyncio.wait_for(reader.read(100), 10)
    other, second = await asyncio.open_unix_connection(line.path)
    second.write(line.ticket.encode())
    assert await asyncio.wait_for(other.read(), 10) == b""
    writer.close()
    second.close()


@pytest.mark.parametrize("call_id", ["fc-" + 22 * "x", "fc-1", "in-" + 22 * "0"])
async def test_a_call_that_is_not_of_the_line_is_refused(client: Client, double: str, call_id: str) -> None:  # noqa: F811
    line = await get_line(client, double)
    with pytest.raises(InvalidError, match="cannot have been made over the line"):
        await run_sent(client, double, call_id, line.line_id)


async def test_a_line_is_of_one_function(client: Client, double: str) -> None:  # noqa: F811
    def triple(x: int) -> int:
        return 3 * x

    line = await get_line(client, double)
    other = await client.function(triple)
    with pytest.raises(InvalidError, match="cannot have been made over the line"):
        await run_sent(client, other, line.prefix + "00000001", line.line_id)


async def test_a_call_over_a_line_that_nobody_knows_runs(client: Client, double: str) -> None:  # noqa: F811
    """As after a restart of the server, whose containers are gone."""
    call_id = "fc-" + 22 * "7"
    assert await run_sent(client, double, call_id, "dl-unknown") == 10
    assert await run_sent(client, double, call_id, "dl-unknown") == 10  # the same call, which has its result
    with pytest.raises(InvalidError):
        await run_sent(client, double, "fc-" + 22 * "/", "dl-unknown")
    with pytest.raises(NotFoundError):
        await run_sent(client, "fu-unknown", "fc-" + 22 * "8", "dl-unknown")


async def test_a_call_that_the_container_never_answers_ends_with_its_timeout(client: Client, double: str) -> None:  # noqa: F811
    """A client that lies, or a container that has lost an input: it does not wait for ever."""
    line = await get_line(client, double)
    payload = serialize(((5,), {}))
    request = CallRun(double, Input(0, len(payload)), call_id=line.prefix + "00000001", line_id=line.line_id)
    output, _ = await client.rpc.unary(CALL_RUN, request, payload, timeout=30)
    assert output.status is Status.TIMEOUT
    assert deserialize((await client.run(double, 4))[1]) == 8
