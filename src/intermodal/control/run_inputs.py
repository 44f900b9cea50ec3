"""What a container is sent to run."""

from __future__ import annotations

from collections.abc import Iterable

from intermodal.control.calls import Calls, locate
from modal._wire.messages.runner import RunInput, RunInputs

_FRAME_BYTES = 8 * 1024 * 1024  # of payloads; a frame may have twice as many bytes, with its header


def run_inputs(calls: Calls, input_ids: Iterable[str]) -> tuple[list[tuple[RunInputs, bytes]], list[str]]:
    """The messages and bodies that give a container these inputs, and the inputs that have their output already."""
    frames: list[tuple[RunInputs, bytes]] = []
    over: list[str] = []
    inputs: list[RunInput] = []
    bodies: list[bytes] = []
    size = 0
    for one in input_ids:
        call_id, index = locate(one)
        call = calls.live(call_id)
        payload = call.inputs.get(index) if call is not None else None
        if call is None or payload is None:
            over.append(one)
            continue
        data = payload.data
        size += len(data)
        if size > _FRAME_BYTES and inputs:
            frames.append((RunInputs(inputs), b"".join(bodies)))
            inputs, bodies, size = [], [], len(data)
        inputs.append(RunInput(one, call_id, len(data), payload.blob, call.machine.retries(index), call.record.method))
        bodies.append(data)
    if inputs:
        frames.append((RunInputs(inputs), b"".join(bodies)))
    return frames, over
