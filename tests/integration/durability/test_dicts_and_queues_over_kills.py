"""Dicts and queues over kill -9 of the server: what a call returned from is there, once."""

from __future__ import annotations

import random
import threading

import pytest
from killable_server import ROUNDS, KillableServer

import modal


@pytest.mark.parametrize("round", range(ROUNDS))
def test_a_queue_loses_and_doubles_nothing(round: int, server: KillableServer, client: modal.Client) -> None:
    rng = random.Random(round)
    queue = modal.Queue.lookup("work", create_if_missing=True, client=client)
    producers, items = 3, 150
    taken: list[list[tuple[int, int]]] = [[] for _ in range(3)]
    failures: list[BaseException] = []

    def produce(number: int) -> None:
        try:
            for item in range(items):
                queue.put((number, item))
        except BaseException as error:
            failures.append(error)

    def consume(mine: list[tuple[int, int]]) -> None:
        try:
            while (item := queue.get()) is not None:
                mine.append(item)
        except BaseException as error:
            failures.append(error)

    making = [threading.Thread(target=produce, args=(number,)) for number in range(producers)]
    taking = [threading.Thread(target=consume, args=(mine,)) for mine in taken]
    with server.killed_at_random(rng, (0.05, 0.4), 4):
        for one in [*making, *taking]:
            one.start()
        for one in making:
            one.join(120)
    for _ in taking:
        queue.put(None)
    for one in taking:
        one.join(120)
    assert not failures, failures
    assert server.kills >= 1
    assert sorted(item for mine in taken for item in mine) == [(p, i) for p in range(producers) for i in range(items)]
    assert queue.len() == 0


@pytest.mark.parametrize("round", range(ROUNDS))
def test_a_dict_has_what_was_put_and_gives_each_entry_to_one(
    round: int, server: KillableServer, client: modal.Client
) -> None:
    rng = random.Random(100 + round)
    shared = modal.Dict.lookup("facts", create_if_missing=True, client=client)
    won: list[list[int]] = [[], []]
    failures: list[BaseException] = []

    def pop(mine: list[int]) -> None:
        try:
            for number in range(200):
                try:
                    mine.append(shared.pop(number))
                except KeyError:
                    pass
        except BaseException as error:
            failures.append(error)

    with server.killed_at_random(rng, (0.05, 0.3), 3):
        for number in range(200):
            shared[number] = number
        assert sorted(shared.keys()) == list(range(200))
    with server.killed_at_random(rng, (0.02, 0.2), 3):
        poppers = [threading.Thread(target=pop, args=(mine,)) for mine in won]
        for one in poppers:
            one.start()
        for one in poppers:
            one.join(120)
    assert not failures, failures
    assert sorted(won[0] + won[1]) == list(range(200))
    assert shared.len() == 0


def test_ephemeral_objects_outlive_a_restart_with_their_client(server: KillableServer, client: modal.Client) -> None:
    with modal.Dict.ephemeral({"a": bytes(100_000)}, client=client) as one:
        server.kill()
        server.start()
        assert one["a"] == bytes(100_000)
