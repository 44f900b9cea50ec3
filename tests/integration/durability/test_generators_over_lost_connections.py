"""A generator goes on over a connection that breaks, each value once; over a restart it ends with a clear error."""

from __future__ import annotations

from typing import Any

import pytest
from killable_server import KillableServer

import modal
from modal._sync import run
from modal.exception import ExecutionError


def counting_app(**options: Any) -> tuple[modal.App, modal.Function]:
    app = modal.App("counting")

    @app.function(serialized=True, **options)
    def count(n: int, size: int, path: str = "") -> Any:
        import os
        import time

        for number in range(n):
            yield (number, bytes(size))
            while path and number == 5 and not os.path.exists(path):
                time.sleep(0.01)

    return app, count


def cut(client: modal.Client) -> None:
    """Break the connection, as a network does."""

    async def cut_it() -> None:
        link = await client._connection._connected(5)
        link.carrier._transport.abort()

    run(cut_it())


@pytest.mark.parametrize("size", [0, 200_000])
def test_every_value_arrives_once_over_connections_that_break(
    size: int, server: KillableServer, client: modal.Client
) -> None:
    app, count = counting_app()
    got = []
    with app.run(client=client):
        for number, data in count.remote_gen(60, size):
            assert len(data) == size
            got.append(number)
            if number in (0, 7, 30):
                cut(client)
    assert got == list(range(60))


def test_a_generator_ends_with_a_clear_error_when_the_server_restarts(
    server: KillableServer, client: modal.Client, tmp_path: Any
) -> None:
    app, count = counting_app()
    with app.run(client=client):
        values = count.remote_gen(20, 0, str(tmp_path / "go"))
        assert [next(values)[0] for _ in range(6)] == list(range(6))
        server.kill()
        server.start()
        (tmp_path / "go").touch()
        with pytest.raises(ExecutionError, match="restarted while the generator ran"):
            list(values)


def test_a_generator_that_is_closed_while_the_connection_is_lost_is_cancelled(
    server: KillableServer, client: modal.Client, tmp_path: Any
) -> None:
    app, count = counting_app(concurrency_limit=1)
    with app.run(client=client):
        values = count.remote_gen(20, 0, str(tmp_path / "never"))
        next(values)
        cut(client)
        values.close()
        assert len(list(count.remote_gen(3, 0))) == 3, "the only container is free again"


def test_a_generator_that_fails_after_it_yielded_is_not_run_again(server: KillableServer, client: modal.Client) -> None:
    app = modal.App("failing")

    @app.function(serialized=True, retries=3)
    def fail() -> Any:
        yield 1
        raise ValueError("half way")

    with app.run(client=client):
        values = fail.remote_gen()
        assert next(values) == 1
        with pytest.raises(ValueError, match="half way"):
            next(values)


def test_a_spawned_generator_is_followed_from_its_beginning(server: KillableServer, client: modal.Client) -> None:
    app, count = counting_app()
    with app.run(client=client):
        call = count.spawn(100, 10)
        assert [number for number, _ in call.get_gen()] == list(range(100))
