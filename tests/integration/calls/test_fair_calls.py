"""A large map is under way: whoever else calls does not wait for it."""

from __future__ import annotations

import itertools
import threading
import time

import modal

MANY = 100_000


def test_a_large_map_holds_up_neither_its_function_nor_another_app(app: modal.App) -> None:
    @app.function(serialized=True, concurrency_limit=1)
    def work(x: int) -> int:
        return x

    other = modal.App("other", image=app.image)

    @other.function(serialized=True)
    def elsewhere(x: int) -> int:
        return x

    with app.run(), other.run():
        assert (work.remote(0), elsewhere.remote(0)) == (0, 0)
        done = itertools.count()
        finished = 0

        def run_map() -> None:
            nonlocal finished
            for _ in work.map(range(MANY), order_outputs=False):
                finished = next(done) + 1

        thread = threading.Thread(target=run_map)
        thread.start()
        while not finished:
            time.sleep(0.001)
        for number in range(5):
            assert work.remote(number) == number
            assert elsewhere.remote(number) == number
        at_the_end = finished
        small = list(work.map(range(100)))
        thread.join(300)
        assert small == list(range(100))
        assert finished == MANY
        # The calls were all made, and answered, while most of the map was still to be done.
        assert at_the_end < MANY * 0.9
