"""What a container is sent to run."""

from __future__ import annotations

from collections.abc import Iterable

from intermodal.control.calls import Calls, locate
from modal._wire.messages.runner import RunInput, RunInputs


def run_inputs(calls: Calls, input_ids: Iterable[str]) -> tuple[RunInputs, bytes, list[str]]:
    """The message and body that give a container these inputs, and those that have their output already."""
    inputs: list[RunInput] = []
    bodies: list[bytes] = []
    over: list[str] = []
    for one in input_ids:
        call_id, index = locate(one)
        call = calls.live(call_id)
        payload = call.inputs.get(index) if call is not None else None
        if call is None or payload is None:
            over.append(one)
            continue
        inputs.append(
            RunInput(one, call_id, len(payload.data), payload.blob, call.machine.retries(index), call.record.method)
        )
        bodies.append(payload.data)
    return RunInputs(inputs), b"".join(bodies), over
