from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal._container.channel import FRAME_LIMIT, Channel, FrameReader, ProtocolError, frame_head
from modal._wire import frames

HEADERS = st.dictionaries(st.text(max_size=8), st.one_of(st.integers(-9, 9), st.text(max_size=8)), max_size=3)


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=40)), max_size=5), st.data())
def test_frames_of_the_wire_arrive_whole_however_they_are_cut(
    sent: list[tuple[dict[str, object], bytes]], data: st.DataObject
) -> None:
    stream = b"".join(frames.length_prefixed(frames.pack(header, body)) for header, body in sent)
    reader = FrameReader()
    received = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += [(header, bytes(body)) for header, body in reader.feed(stream[:size])]
        stream = stream[size:]
    assert received == sent


@given(HEADERS, st.binary(max_size=40))
def test_frames_it_writes_are_frames_of_the_wire(header: dict[str, object], body: bytes) -> None:
    (frame,) = frames.FrameDecoder().feed(frame_head(header, len(body)) + body)
    got, rest = frames.unpack(frame)
    assert (got, bytes(rest)) == (header, body)


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack(">II", FRAME_LIMIT + 1, 2),
        struct.pack(">II", 6, 100),
        struct.pack(">II", 6, 2) + b"[]",
        struct.pack(">II", 6, 2) + b"{]",
        struct.pack(">II", 6, 2) + b"\xff\xff",
        struct.pack(">II", 0, 0),
    ],
)
def test_impossible_frames_are_a_protocol_error(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameReader().feed(stream)


@given(st.binary(max_size=60))
def test_garbage_is_a_protocol_error_or_waits_for_more(data: bytes) -> None:
    try:
        FrameReader().feed(data)
    except ProtocolError:
        return


def test_large_payloads_arrive_after_one_another(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    channel = Channel(str(tmp_path / "s"))
    agent, _ = listener.accept()
    payloads = [b"a" * 1_000_000, b"b" * 300_000]
    sender = threading.Thread(target=channel.send, args=({"t": "Outputs"}, payloads))
    sender.start()
    decoder, received = frames.FrameDecoder(), []
    while not received:
        received = decoder.feed(agent.recv(1 << 16))
    sender.join()
    assert bytes(frames.unpack(received[0])[1]) == b"".join(payloads)
    assert channel.receive(0.01) is None
    agent.close()
    assert channel.receive() == b""
    channel.leave_in_child()
    listener.close()
