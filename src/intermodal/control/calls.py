"""Live function calls: their inputs, their outputs, and who waits for them. State, and its journal.

An input has no record of its own: its id is computed from the call's id and its index, so that a million queued inputs
cost little more than their payloads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from intermodal.control.generator_values import GeneratorValues, Payload
from intermodal.machines.call import CallMachine, CallState
from intermodal.machines.machine import IllegalTransition
from intermodal.store.interface import CallKind, CallRecord, InputChunk, OutputChunk, Store
from modal._wire.codec import decode, encode
from modal._wire.messages.call import Input, Output, Status
from modal._wire.messages.common import ErrorInfo
from modal._wire.messages.function import RetryPolicy
from modal.exception import InvalidError, NotFoundError, OutputExpiredError

_NO_RETRY = RetryPolicy()
_FLUSH_AFTER = 0.005  # seconds; what the journal takes is gathered off the path of calls


@dataclass(frozen=True, slots=True)
class Finished:
    """An output with its inline payload."""

    output: Output
    data: bytes
    container_id: str = ""  #: that gave it


def input_id(call_id: str, index: int) -> str:
    """The id of an input, e.g. ``in-4Zk…-17``."""
    return f"in-{call_id[3:]}-{index}"


def locate(an_input_id: str) -> tuple[str, int]:
    """The call id and index that an input id stands for. Raises `NotFoundError`."""
    head, _, index = an_input_id.rpartition("-")
    if not head.startswith("in-") or not index.isdigit():
        raise NotFoundError(f"There is no input {an_input_id!r}.")
    return "fc-" + head[3:], int(index)


def is_awaited(record: CallRecord) -> bool:
    """Whether a call is for its caller alone, rather than to be fetched by whoever has its id."""
    return record.kind is not CallKind.SPAWN


@dataclass(slots=True)
class Call:
    """One call: what the machine knows of its inputs, and their payloads while they have no output.

    A call of one input keeps its output here. The outputs of a map go to its watcher and to the journal only, since
    there may be a million.
    """

    record: CallRecord
    machine: CallMachine
    inputs: dict[int, Payload] = field(default_factory=dict)  #: by index, without an output yet
    output: Finished | None = None
    watchers: list[Callable[[int, Finished], None]] = field(default_factory=list)
    values: GeneratorValues | None = None  #: what it yielded, once it has
    kept_bytes: int = 0  #: what it counts for since it ended; its values may still be read, and be let go

    @property
    def is_done(self) -> bool:
        """Whether every input that will ever come has its output."""
        return self.machine.state is CallState.DONE

    def add_value(self, value: Payload) -> None:
        """A generator has yielded this. After its end, as when it was cancelled, nobody wants it any more."""
        if self.is_done:
            return
        if self.values is None:
            self.values = GeneratorValues()
        self.values.append(value)

    def add_watcher(self, watcher: Callable[[int, Finished], None]) -> Callable[[], None]:
        """Call `watcher(index, finished)` for each output to come; returns what removes it."""
        self.watchers.append(watcher)
        return lambda: self.watchers.remove(watcher) if watcher in self.watchers else None


class Calls:
    """Every call that is live or was lately.

    Args:
        store: the journal.
        now: the clock, in seconds since the epoch.
        keep: bytes of finished outputs that stay in memory; older ones are read from the store.
    """

    def __init__(self, store: Store, now: Callable[[], float], keep: int = 32 << 20) -> None:
        self._store = store
        self._now = now
        self._live: dict[str, Call] = {}
        self._by_key: dict[str, Call] = {}
        self._by_function: dict[str, set[str]] = {}
        self._by_parent: dict[str, set[str]] = {}  # live calls by the input that made them
        self._by_session: dict[str, set[str]] = {}  # live calls by the client session that waits for them
        self._ended: dict[str, Call] = {}
        self._ended_bytes = 0
        self._keep = keep
        self._unstored_inputs: list[tuple[str, list[Input], bytes]] = []
        self._unstored_outputs: dict[str, _UnstoredOutputs] = {}
        self._unstored_calls: dict[str, CallRecord] = {}
        self._flush_handle: asyncio.TimerHandle | None = None
        self.on_finish: Callable[[Call, int, Finished], None] = lambda call, index, finished: None

    # -- making and finding -------------------------------------------------------------------------------------

    def create(self, record: CallRecord, policy: RetryPolicy) -> Call:
        """Begin a call. It reaches the journal with its first inputs."""
        call = Call(record, CallMachine(record.call_id, policy))
        self._live[record.call_id] = call
        if record.key and not record.key.endswith("/"):
            self._by_key[record.key] = call
        self._by_function.setdefault(record.function_id, set()).add(record.call_id)
        if record.parent_input_id:
            self._by_parent.setdefault(record.parent_input_id, set()).add(record.call_id)
        if is_awaited(record):
            self._by_session.setdefault(_session_of(record), set()).add(record.call_id)
        self._unstored_calls[record.call_id] = record
        self._flush_soon()
        return call

    def live(self, call_id: str) -> Call | None:
        """The call if it is in memory."""
        return self._live.get(call_id) or self._ended.get(call_id)

    async def find(self, call_id: str) -> Call:
        """The call, read from the store when it ended long ago. Raises `NotFoundError`."""
        call = self.live(call_id)
        if call is not None:
            return call
        self.flush()  # it may have ended a moment ago
        record = await self._store.call(call_id)
        if record is None:
            if await self._store.has_expired(call_id):
                raise OutputExpiredError(f"The results of {call_id} were kept for their time and have been deleted.")
            raise NotFoundError(f"There is no function call {call_id!r}; its id is wrong, or it was deleted long ago.")
        call = Call(record, CallMachine(call_id, RetryPolicy()))
        for finished in await self.outputs(call):
            call.machine.accept(finished.output.index)
            call.machine.finish(finished.output.index)
            call.output = finished if record.kind is not CallKind.MAP else None
        call.machine.close()
        call.values = GeneratorValues(is_lost=True)
        return call

    async def outputs(self, call: Call) -> list[Finished]:
        """Every output of the call until now, from the journal."""
        self.flush()
        chunks = await self._store.outputs(call.record.call_id)
        return [finished for chunk in chunks for finished in _outputs_of(chunk)]

    async def find_by_key(self, key: str) -> Call | None:
        """The call that an earlier request with this idempotency key made."""
        if not key:
            return None
        if key in self._by_key:
            return self._by_key[key]
        record = await self._store.call_by_key(key)
        return await self.find(record.call_id) if record is not None else None

    def of_function(self, function_id: str) -> list[Call]:
        """The calls of a function that are not done."""
        return [self._live[call_id] for call_id in self._by_function.get(function_id, ())]

    def awaited_by(self, an_input_id: str) -> list[Call]:
        """The live calls that this input made and waits for: all but those it spawned."""
        made = [self._live[call_id] for call_id in self._by_parent.get(an_input_id, ())]
        return [call for call in made if is_awaited(call.record)]

    def awaited_by_session(self, session_id: str) -> list[Call]:
        """The live calls that a client session made and waits for: all but those it spawned."""
        return [self._live[call_id] for call_id in self._by_session.get(session_id, ())]

    def sessions(self) -> set[str]:
        """The client sessions that wait for a live call."""
        return set(self._by_session) - {""}

    # -- inputs ------------------------------------------------------------------------------------------------

    def add_inputs(self, call: Call, inputs: list[Input], body: bytes) -> list[str]:
        """Accept inputs that are new and return their ids. They reach the journal a moment later.

        Args:
            body: their payloads, of the sizes that they say.

        Raises:
            InvalidError: the call takes no more inputs, or not one of that index.
        """
        new: list[str] = []
        accepted: list[Input] = []
        offset = 0
        call_id = call.record.call_id
        for item in inputs:
            data = body[offset : offset + item.size]
            offset += item.size
            try:
                if not call.machine.accept(item.index):
                    continue  # a resumed map sends again what it does not know to have arrived
            except IllegalTransition:
                raise InvalidError(f"The call {call_id} was closed and takes no more inputs.") from None
            call.inputs[item.index] = Payload(data, item.blob)
            new.append(input_id(call_id, item.index))
            accepted.append(item)
        if accepted:
            kept = body if len(new) == len(inputs) else b"".join(call.inputs[item.index].data for item in accepted)
            self._unstored_inputs.append((call_id, accepted, kept))
            self._flush_soon()
        return new

    def add_finished(self, record: CallRecord, output: Output, data: bytes, container_id: str) -> Call:
        """A call of one input that has ended before it was heard of: its input is not kept."""
        call = Call(
            replace(record, inputs_closed=True, finished_at=self._now()), CallMachine(record.call_id, _NO_RETRY)
        )
        call.machine.accept(0)
        call.machine.close()
        call.machine.finish(0)
        call.output = Finished(output, data, container_id)
        self._unstored_calls[record.call_id] = call.record
        self._unstored_outputs[record.call_id] = _UnstoredOutputs()
        self._unstored_outputs[record.call_id].add(call.output)
        self._flush_soon()
        self.on_finish(call, 0, call.output)
        self._keep_ended(call)
        return call

    async def durable(self) -> None:
        """Return when everything accepted so far is on disk. Raises `StoreError`."""
        self.flush()
        await self._store.write([])

    def problem(self) -> str:
        """Why nothing can be stored now; empty while all is well."""
        return self._store.healthy()

    # -- outputs -----------------------------------------------------------------------------------------------

    def finish(self, call: Call, index: int, output: Output, data: bytes, container_id: str = "") -> None:
        """Give input `index` its final output, tell who waits, and journal it."""
        if not call.machine.finish(index):
            return  # it has its output: cancelled, or answered twice
        del call.inputs[index]
        finished = Finished(output, data, container_id)
        if call.record.kind is not CallKind.MAP:
            call.output = finished
        unstored = self._unstored_outputs.get(call.record.call_id)
        if unstored is None:
            unstored = self._unstored_outputs[call.record.call_id] = _UnstoredOutputs()
        unstored.add(finished)
        self._flush_soon()
        self.on_finish(call, index, finished)
        for watcher in tuple(call.watchers):
            watcher(index, finished)
        if call.is_done:
            self._inputs_closed(call)

    def close_inputs(self, call: Call) -> None:
        """No more inputs will come."""
        call.machine.close()
        self._inputs_closed(call)

    def abandon(self, call: Call, status: Status, error: ErrorInfo) -> None:
        """End every unfinished input with this status and error, and take no more."""
        for index in call.machine.cancel():
            self.finish(call, index, Output(index, status, 0, None, error, input_id(call.record.call_id, index)), b"")
        self._inputs_closed(call)

    def _inputs_closed(self, call: Call) -> None:
        if not call.record.inputs_closed:
            call.record = replace(call.record, inputs_closed=True)
            self._unstored_calls[call.record.call_id] = call.record
            self._flush_soon()
        if call.is_done and call.record.call_id in self._live:
            self._end(call)

    def _end(self, call: Call) -> None:
        call_id = call.record.call_id
        call.record = replace(call.record, finished_at=self._now())
        self._unstored_calls[call_id] = call.record
        self._flush_soon()
        del self._live[call_id]
        _forget_one(self._by_function, call.record.function_id, call_id)
        _forget_one(self._by_parent, call.record.parent_input_id, call_id)
        if is_awaited(call.record):
            _forget_one(self._by_session, _session_of(call.record), call_id)
        self._keep_ended(call)

    def _keep_ended(self, call: Call) -> None:
        self._ended[call.record.call_id] = call
        call.kept_bytes = _weight(call)
        self._ended_bytes += call.kept_bytes
        while self._ended_bytes > self._keep:
            self._forget(next(iter(self._ended.values())))

    def expire(self, before: float) -> None:
        """Drop calls that finished before that time from memory: they are in the journal no longer."""
        for call in [one for one in self._ended.values() if (one.record.finished_at or before) < before]:
            self._forget(call)

    def _forget(self, call: Call) -> None:
        del self._ended[call.record.call_id]
        self._ended_bytes -= call.kept_bytes
        if self._by_key.get(call.record.key) is call:
            del self._by_key[call.record.key]

    # -- the journal -------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_later(_FLUSH_AFTER, self.flush)

    def flush(self) -> None:
        """Hand what was gathered to the store."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        inputs, self._unstored_inputs = self._unstored_inputs, []
        outputs, self._unstored_outputs = self._unstored_outputs, {}
        calls, self._unstored_calls = self._unstored_calls, {}
        changes: list[CallRecord | InputChunk | OutputChunk] = [*calls.values()]
        changes += [
            InputChunk(call_id, [_input_record(item) for item in items], body) for call_id, items, body in inputs
        ]
        changes += [OutputChunk(call_id, one.records, b"".join(one.bodies)) for call_id, one in outputs.items()]
        if changes:
            self._store.write(changes)

    def restore(
        self, record: CallRecord, policy: RetryPolicy, inputs: Iterable[InputChunk], outputs: Iterable[OutputChunk]
    ) -> tuple[Call, list[str]]:
        """Bring back a call that was live when the server stopped; returns it and the ids of its unfinished inputs."""
        call = self.create(record, policy)
        for chunk in inputs:
            offset = 0
            for encoded in chunk.records:
                item = decode(Input, encoded)
                if call.machine.accept(item.index):
                    call.inputs[item.index] = Payload(chunk.body[offset : offset + item.size], item.blob)
                offset += item.size
        for output_chunk in outputs:
            for finished in _outputs_of(output_chunk):
                if call.machine.finish(finished.output.index):
                    del call.inputs[finished.output.index]
                    call.output = finished if record.kind is not CallKind.MAP else None
        if record.inputs_closed or record.kind is not CallKind.MAP:
            self.close_inputs(call)
        return call, [input_id(record.call_id, index) for index in call.machine.unfinished()]


def _session_of(record: CallRecord) -> str:
    return record.key.partition("/")[0]


def _forget_one(index: dict[str, set[str]], key: str, call_id: str) -> None:
    members = index.get(key)
    if members is not None:
        members.discard(call_id)
        if not members:
            del index[key]


def _input_record(item: Input) -> dict[str, object]:
    record: dict[str, object] = {"index": item.index, "size": item.size}
    if item.blob is not None:
        record["blob"] = encode(item.blob)
    return record


def _output_record(output: Output) -> dict[str, object]:
    record: dict[str, object] = {"index": output.index, "status": output.status.value, "size": output.size}
    if output.blob is not None:
        record["blob"] = encode(output.blob)
    if output.error is not None:
        record["error"] = encode(output.error)
    return record


class _UnstoredOutputs:
    """Outputs of one call for the journal. A map's come in runs from one container, so each run names it once."""

    __slots__ = ("_container_id", "bodies", "records")

    def __init__(self) -> None:
        self.records: list[dict[str, object]] = []
        self.bodies: list[bytes] = []
        self._container_id = ""

    def add(self, finished: Finished) -> None:
        record = _output_record(finished.output)
        if finished.container_id != self._container_id or not self.records:
            record["container_id"] = self._container_id = finished.container_id
        self.records.append(record)
        self.bodies.append(finished.data)


def containers_of(records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Each output record, in the order of the journal, with the id of the container that gave it."""
    container_id = ""
    for record in records:
        container_id = record.get("container_id", container_id)
        yield record, container_id


def _outputs_of(chunk: OutputChunk) -> Iterator[Finished]:
    offset = 0
    for encoded, container_id in containers_of(chunk.records):
        output = decode(Output, encoded)
        yield Finished(
            replace(output, input_id=input_id(chunk.call_id, output.index)),
            chunk.body[offset : offset + output.size],
            container_id,
        )
        offset += output.size


def _weight(call: Call) -> int:
    """Roughly the bytes that keeping a finished call costs."""
    output = len(call.output.data) if call.output is not None else 0
    return 1024 + output + (call.values.weight if call.values is not None else 0)
