"""The connection machine: two sides joined by lists, and one side against anything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import modal.exception
from modal._wire.connection import (
    PROTOCOL,
    Aborted,
    Cancelled,
    Connection,
    Credited,
    Ended,
    Failed,
    Hello,
    Item,
    Opened,
    Replied,
    Said,
    State,
    Welcome,
)
from modal._wire.errors import WireError
from modal._wire.frames import pack
from modal._wire.messages.common import ErrorInfo, Shape

WINDOW = 1000


def deliver(source: Connection, target: Connection) -> list:
    """Carry what `source` queued to `target` and return the events."""
    events = [target.receive(b"".join(frame)) for frame in source.take()]
    return [event for event in events if event is not None]


def pair(**options) -> tuple[Connection, Connection]:
    """A client and a server after their handshake."""
    client, server = Connection(client=True, window=WINDOW), Connection(client=False, window=WINDOW, **options)
    client.hello("se-1", "0.1.0", {"id": "a"})
    assert deliver(client, server) == [Hello("se-1", "0.1.0", {"id": "a"})]
    server.welcome("0.1.0")
    assert deliver(server, client) == [Welcome("0.1.0")]
    return client, server


def opened(shape: Shape) -> tuple[Connection, Connection, int]:
    client, server = pair()
    id = client.open("a.b", shape, {"x": 1}, b"body", seconds=2.5, key="k1")
    (event,) = deliver(client, server)
    assert event == Opened(id, "a.b", {"x": 1}, b"body", 2.5, "k1")
    server.accept(id, shape)
    return client, server, id


def test_a_unary_call_is_one_frame_each_way():
    client, server, id = opened(Shape.UNARY)
    server.reply(id, {"y": 2}, b"answer")
    assert deliver(server, client) == [Replied(id, {"y": 2}, b"answer")]
    assert not client._calls
    assert not server._calls


def test_an_error_ends_its_call_only():
    client, server, id = opened(Shape.UNARY)
    other = client.open("a.b", Shape.UNARY, {}, b"")
    deliver(client, server)
    server.fail(id, ErrorInfo("NotFoundError", "No."))
    (event,) = deliver(server, client)
    assert isinstance(event, Failed)
    assert isinstance(event.error, modal.exception.NotFoundError)
    server.reply(other, {})
    assert deliver(server, client) == [Replied(other, {}, b"")]


def test_a_duplex_stream_flows_both_ways_and_ends():
    client, server, id = opened(Shape.DUPLEX)
    client.item(id, {"n": 1}, b"up")
    client.end(id)
    item, end = deliver(client, server)
    assert item[:3] == (id, {"n": 1}, b"up")
    assert end == Ended(id)
    server.item(id, {"n": 2}, b"down")
    server.end(id)
    item, end = deliver(server, client)
    assert item[:3] == (id, {"n": 2}, b"down")
    assert end == Ended(id)
    assert not client._calls
    assert not server._calls


def test_a_cancel_crosses_the_answer_without_harm():
    client, server, id = opened(Shape.SERVER_STREAM)
    server.item(id, {})
    server.end(id)
    client.cancel(id)
    assert deliver(server, client) == []
    assert deliver(client, server) == []
    client, server, id = opened(Shape.UNARY)
    client.cancel(id)
    assert deliver(client, server) == [Cancelled(id)]
    server.reply(id, {})
    assert server.take() == []


def test_a_sender_without_credit_waits_until_its_items_are_consumed():
    client, server, id = opened(Shape.SERVER_STREAM)
    sent = []
    while server.may_send(id):
        server.item(id, {}, bytes(150))
        sent += deliver(server, client)
    total = sum(item.size for item in sent)
    assert WINDOW <= total < WINDOW + 250
    assert client.take() == [], "nothing is granted for what nobody consumed"
    for item in sent[:-1]:
        client.consumed(id, item.size)
    assert deliver(client, server) == [Credited(id)]
    assert server.may_send(id)


def test_items_without_a_body_are_held_back_too():
    client, _, id = opened(Shape.CLIENT_STREAM)
    count = 0
    while client.may_send(id):
        client.item(id, {"text": "x" * 10})
        count += 1
    assert count <= WINDOW / 40


def test_who_sends_without_credit_is_cut_off():
    _, server, id = opened(Shape.CLIENT_STREAM)
    frame = pack({"t": "item", "id": id}, bytes(WINDOW))
    assert isinstance(server.receive(frame), Item)
    with pytest.raises(WireError, match="no credit left"):
        server.receive(frame)


def test_more_credit_than_the_window_is_refused():
    _, server, id = opened(Shape.SERVER_STREAM)
    with pytest.raises(WireError, match="More credit"):
        server.receive(pack({"t": "credit", "id": id, "n": 1}))


@pytest.mark.parametrize(
    ("client_version", "server_version", "old"),
    [(PROTOCOL, PROTOCOL + 1, "client"), (PROTOCOL + 1, PROTOCOL, "server")],
)
def test_sides_of_different_versions_learn_which_to_upgrade(client_version, server_version, old):
    if old == "client":  # the server is newer: it refuses us, or if it does not, we refuse it
        side = Connection(client=True)
        event = side.receive(pack({"t": "welcome", "protocol": server_version, "version": "9"}))
    else:
        side = Connection(client=False)
        event = side.receive(pack({"t": "hello", "protocol": client_version, "version": "9", "session": "se-1"}))
        client = Connection(client=True)
        (told,) = deliver(side, client)
        assert isinstance(told.error, modal.exception.VersionError)
        assert f"upgrade Intermodal on the {old}" in str(told.error)
    assert isinstance(event, Aborted)
    assert isinstance(event.error, modal.exception.VersionError)
    assert f"upgrade Intermodal on the {old}" in str(event.error)
    assert side.state is State.CLOSED


@pytest.mark.parametrize(
    "header",
    [
        {"t": "open", "id": 1, "m": "a.b", "q": {}},
        {"t": "hello"},
        {"t": "hello", "protocol": 1, "version": "1", "session": ""},
        {"t": "hello", "protocol": 1, "version": "1", "session": "s" * 101},
        {"t": "hello", "protocol": True, "version": "1", "session": "s"},
        {"t": "hello", "protocol": 1, "version": "1", "session": "s", "token": "t"},
        {"t": ["hello"]},
        {},
    ],
)
def test_a_server_takes_nothing_before_a_proper_hello(header):
    with pytest.raises(WireError):
        Connection(client=False).receive(pack(header))


@pytest.mark.parametrize(
    "header",
    [
        {"t": "hello", "protocol": 1, "version": "1", "session": "s"},
        {"t": "open", "id": 1, "m": "a.b"},
        {"t": "open", "id": 0, "m": "a.b"},
        {"t": "open", "id": True, "m": "a.b"},
        {"t": "open", "id": 2**60, "m": "a.b"},
        {"t": "open", "id": 7, "m": None},
        {"t": "open", "id": 7, "m": "a.b", "d": -1},
        {"t": "open", "id": 7, "m": "a.b", "d": "1"},
        {"t": "open", "id": 7, "m": "a.b", "d": 1e300},
        {"t": "open", "id": 7, "m": "a.b", "k": 1},
        {"t": "open", "id": 7, "m": "a.b", "k": "k" * 201},
        {"t": "item", "id": 1},
        {"t": "item", "id": 9},
        {"t": "item"},
        {"t": "end", "id": 1},
        {"t": "credit", "id": 1, "n": 0},
        {"t": "credit", "id": 1, "n": 2**70},
        {"t": "cancel", "id": "1"},
        {"t": "reply", "id": 1, "q": {}},
        {"t": "error", "id": 1, "e": {}},
        {"t": "error", "e": {"type": "X"}},
        {"t": "ping", "n": "x"},
        {"t": "ping", "n": 2**60},
        {"t": "nonsense"},
    ],
)
def test_a_server_refuses_frames_that_break_the_protocol(header):
    _, server, _ = opened(Shape.UNARY)
    with pytest.raises(WireError):
        server.receive(pack(header))


def test_too_many_calls_at_once_fail_without_ending_the_connection():
    client, server = pair(max_calls=2)
    ids = [client.open("a.b", Shape.UNARY, {}, b"") for _ in range(3)]
    assert len(deliver(client, server)) == 2
    (event,) = deliver(server, client)
    assert event.id == ids[2]
    assert "More than 2 calls" in str(event.error)


def test_ping_bye_and_abort():
    client, server = pair()
    client.ping(3)
    assert deliver(client, server) == []
    assert deliver(server, client) == [Said("pong")]
    client.bye()
    assert deliver(client, server) == [Said("bye")]
    server.abort(ErrorInfo("InvalidError", "Bad frame."))
    (event,) = deliver(server, client)
    assert str(event.error) == "Bad frame."
    assert client.state is server.state is State.CLOSED
    server.abort(ErrorInfo("InvalidError", "Again."))
    assert server.take() == []
    assert server.receive(pack({"t": "ping", "n": 1})) is None


small = st.integers(-1, 4) | st.integers() | st.none() | st.text(max_size=3)
hostile_headers = st.fixed_dictionaries(
    {
        "t": st.sampled_from(
            ["hello", "welcome", "open", "item", "end", "cancel", "bye", "reply", "error", "credit", "ping", "pong"]
        )
    },
    optional={
        "id": small,
        "n": small,
        "m": st.just("a.b") | small,
        "q": small | st.dictionaries(st.text(max_size=3), small, max_size=2),
        "d": small | st.floats(allow_nan=False, allow_infinity=False),
        "k": small,
        "e": small | st.fixed_dictionaries({"type": small, "message": small}),
        "protocol": small,
        "version": small,
        "session": small,
        "token": small,
    },
)


@given(
    st.booleans(),
    st.sampled_from(list(Shape)),
    st.lists(st.tuples(hostile_headers, st.binary(max_size=300)), max_size=20),
)
@settings(max_examples=300)
def test_no_sequence_of_frames_does_more_than_raise_a_wire_error(as_client, shape, frames):
    client, server, _ = opened(shape)
    side = client if as_client else server
    kept = 0
    for header, body in frames:
        try:
            event = side.receive(pack(header, body))
        except WireError:
            side.abort(ErrorInfo("InvalidError", "x"))
            continue
        if isinstance(event, Opened):
            side.accept(event.id, shape)
        if isinstance(event, Item):
            kept += event.size
    assert kept <= (1 + len(frames)) * (WINDOW + 1000)
    assert len(side._calls) <= 1 + len(frames)


@given(st.booleans(), st.lists(st.binary(max_size=100), max_size=5))
def test_random_bytes_do_no_more_than_raise_a_wire_error(as_client, frames):
    side = pair()[0 if as_client else 1]
    for frame in frames:
        try:
            side.receive(frame)
        except WireError:
            pass


class TwoSides(RuleBasedStateMachine):
    """Random legal use of a duplex stream: nothing is refused, lost, or kept beyond the window."""

    def __init__(self) -> None:
        super().__init__()
        self.client, self.server, self.id = opened(Shape.DUPLEX)
        self.sides = {"client": self.client, "server": self.server}
        self.sent = {"client": 0, "server": 0}
        self.waiting = {"client": [], "server": []}  # items that arrived there
        self.got = {"client": 0, "server": 0}

    def other(self, name: str) -> str:
        return "server" if name == "client" else "client"

    @rule(name=st.sampled_from(["client", "server"]), size=st.integers(0, 600))
    def send(self, name, size):
        if self.sides[name].may_send(self.id):
            self.sides[name].item(self.id, {"n": self.sent[name]}, bytes(size))
            self.sent[name] += 1

    @rule(name=st.sampled_from(["client", "server"]))
    def carry(self, name):
        target = self.other(name)
        for event in deliver(self.sides[name], self.sides[target]):
            if isinstance(event, Item):
                self.waiting[target].append(event)

    @rule(name=st.sampled_from(["client", "server"]))
    def consume(self, name):
        if self.waiting[name]:
            item = self.waiting[name].pop(0)
            assert item.message == {"n": self.got[name]}
            self.got[name] += 1
            self.sides[name].consumed(self.id, item.size)

    @rule()
    def drain(self):
        """Carrying and consuming everything always lets both sides send again."""
        for _ in range(2):
            for name in self.sides:
                self.carry(name)
            for name in self.sides:
                while self.waiting[name]:
                    self.consume(name)
        for name in self.sides:
            self.carry(name)
        assert all(side.may_send(self.id) for side in self.sides.values())
        assert self.got == {"client": self.sent["server"], "server": self.sent["client"]}

    @invariant()
    def the_window_bounds_what_is_kept(self):
        for items in self.waiting.values():
            assert sum(item.size for item in items) < WINDOW + 700


TestTwoSides = TwoSides.TestCase
TestTwoSides.settings = settings(max_examples=60, stateful_step_count=40)
