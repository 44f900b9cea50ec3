"""An item that is taken and given back has its number again: a store has it then, and not when it is taken again."""

from __future__ import annotations

import itertools

import pytest

from intermodal.store.entries import NamedRecord, QueueWrite, StoredItem
from intermodal.store.interface import Store

QUEUE = NamedRecord("qu-1", "queue", "en-main", "", "se-1", 11.0)
PUT = QueueWrite("qu-1", [StoredItem("p", 7, b"x", 99.0)])
TAKE = QueueWrite("qu-1", removed=[("p", 7)])


@pytest.mark.parametrize("steps", range(1, 7))
async def test_the_last_step_counts_however_they_are_committed(steps: int, store: Store) -> None:
    changes = list(itertools.islice(itertools.cycle([PUT, TAKE]), steps))
    for cuts in itertools.product([False, True], repeat=steps):
        store.write_now([QUEUE, QueueWrite("qu-1", cleared_all=True)])
        await store.write([])
        for change, is_cut in zip(changes, cuts, strict=True):
            store.write_now([change])
            if is_cut:
                await store.write([])  # waits for the commit
        found = await store.queue_items("qu-1", 100)
        assert [item.number for item in found] == ([7] if changes[-1] is PUT else []), cuts
