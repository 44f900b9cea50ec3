from __future__ import annotations

import asyncio
import os

from hypothesis import given, settings
from hypothesis import strategies as st

from intermodal.node.log_reader import LogReader


def read_back(pieces: list[bytes]) -> str:
    async def run() -> str:
        reading, writing = os.pipe()
        texts: list[str] = []
        reader = LogReader(reading, texts.append)
        for piece in pieces:
            os.write(writing, piece)
            await asyncio.sleep(0)
        os.close(writing)
        await asyncio.wait_for(reader.ended(), 5)
        reader.close()
        return "".join(texts)

    return asyncio.run(run())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=200), max_size=10))
def test_whatever_is_written_is_read_as_one_stream(pieces: list[bytes]) -> None:
    assert read_back(pieces) == b"".join(pieces).decode("utf-8", "replace")


async def test_closing_stops_reading() -> None:
    reading, writing = os.pipe()
    reader = LogReader(reading, lambda text: None)
    reader.close()
    await reader.ended()
    os.close(writing)
