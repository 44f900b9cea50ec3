"""One contender of the storage benchmark: `storage_contender.py intermodal | redis PORT  OPERATIONS BATCHES`.

Prints a JSON object: the median time of single operations in seconds, and entries or items a second in batches of 100.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

VALUE = {"run": 1, "accuracy": 0.93, "name": "a small value"}
BATCH = 100


@dataclass(frozen=True)
class Contender:
    dict_put: Callable[[int], Any]
    dict_get: Callable[[int], Any]
    queue_put: Callable[[], Any]
    queue_get: Callable[[], Any]
    dict_batch: Callable[[int], Any]  #: set BATCH entries
    queue_put_batch: Callable[[], Any]
    queue_get_batch: Callable[[], Any]


@contextlib.contextmanager
def intermodal() -> Iterator[Contender]:
    import modal

    with modal.Dict.ephemeral() as shared, modal.Queue.ephemeral() as queue:
        yield Contender(
            lambda key: shared.put(key, VALUE),
            shared.get,
            lambda: queue.put(VALUE),
            queue.get,
            lambda number: shared.update(**{f"{number}-{key}": VALUE for key in range(BATCH)}),
            lambda: queue.put_many([VALUE] * BATCH),
            lambda: queue.get_many(BATCH),
        )


@contextlib.contextmanager
def redis(port: int) -> Iterator[Contender]:
    import redis as client

    server = client.Redis(port=port)
    server.flushall()
    dumps, loads = pickle.dumps, pickle.loads
    yield Contender(
        lambda key: server.hset("d", dumps(key), dumps(VALUE)),
        lambda key: loads(server.hget("d", dumps(key))),
        lambda: server.rpush("q", dumps(VALUE)),
        lambda: loads(server.blpop("q")[1]),
        lambda number: server.hset("d", mapping={dumps(f"{number}-{key}"): dumps(VALUE) for key in range(BATCH)}),
        lambda: server.rpush("q", *[dumps(VALUE) for _ in range(BATCH)]),
        lambda: [loads(value) for value in server.lpop("q", BATCH)],
    )
    server.close()


def median(action: Callable[[int], object], count: int) -> float:
    spent = []
    for number in range(count):
        started = time.perf_counter()
        action(number)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def rate(action: Callable[[int], object], count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        action(number)
    return count * BATCH / (time.perf_counter() - started)


def main() -> None:
    *which, operations, batches = sys.argv[1:]
    count, many = int(operations), int(batches)
    with intermodal() if which[0] == "intermodal" else redis(int(which[1])) as one:
        for number in range(200):  # warm
            one.dict_put(number)
            one.queue_put()
            assert one.dict_get(number) == one.queue_get() == VALUE
        figures = {
            "`Dict.put`": median(one.dict_put, count),
            "`Dict.get`": median(one.dict_get, count),
            "`Queue.put`": median(lambda number: one.queue_put(), count),
            "`Queue.get`": median(lambda number: one.queue_get(), count),
            "`Dict.update` of 100 entries, entries /s": rate(one.dict_batch, many),
            "`Queue.put_many` of 100, items /s": rate(lambda number: one.queue_put_batch(), min(many, 50)),
            "`Queue.get_many` of 100, items /s": rate(lambda number: one.queue_get_batch(), min(many, 50)),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
