"""What goes back to the agent: outputs, gathered while inputs end faster than frames are worth sending."""

from __future__ import annotations

from _thread import allocate_lock
from time import perf_counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .channel import Channel

INLINE_LIMIT = 2 * 1024 * 1024  #: as in modal._wire.messages.call
PAYLOAD_LIMIT = 2 * 1024**3  #: as there
_GATHER_SECONDS = 0.001
_REPORT_SECONDS = 0.01
_GATHER_BYTES = 256 * 1024
_FRAME_BYTES = 8 * 1024 * 1024


class Outbox:
    """Outputs that have ended and are not sent yet. Safe to use from any thread."""

    def __init__(self, channel: Channel):
        self._channel = channel
        self._lock = allocate_lock()
        self._records: list[dict[str, Any]] = []
        self._payloads: list[bytes] = []
        self._size = 0
        self._since = 0.0
        self._reports: list[dict[str, Any]] = []
        self._reported: list[bytes] = []
        self._reported_size = 0
        self._reported_since = 0.0

    def add(self, record: dict[str, Any], payload: bytes) -> None:
        """Keep an output for the next `flush`."""
        with self._lock:
            if not self._records:
                self._since = perf_counter()
            elif self._size + len(payload) > _FRAME_BYTES:
                self._send()
            self._records.append(record)
            self._payloads.append(payload)
            self._size += len(payload)

    def is_due(self) -> bool:
        """Whether what is gathered should not wait for more."""
        return self._size > _GATHER_BYTES or perf_counter() - self._since > _GATHER_SECONDS

    def flush(self) -> None:
        """Send what is gathered.

        Raises:
            OSError: the agent is gone.
        """
        if self._records:
            with self._lock:
                self._send()

    def report(self, record: dict[str, Any], payload: bytes) -> None:
        """Keep a result that its client has already, for the next `flush_reports`."""
        with self._lock:
            if not self._reports:
                self._reported_since = perf_counter()
            self._reports.append(record)
            self._reported.append(payload)
            self._reported_size += len(payload)
            if self._reported_size > _FRAME_BYTES:
                self._send_reports()

    def flush_reports(self, at_once: bool = False) -> None:
        """Send what `report` was given, if the oldest of it has waited long enough.

        Raises:
            OSError: the agent is gone.
        """
        if self._reports and (at_once or perf_counter() - self._reported_since > _REPORT_SECONDS):
            with self._lock:
                self._send_reports()

    def taken(self, records: list[dict[str, Any]], payloads: list[bytes]) -> None:
        """Tell of inputs that came over direct lines."""
        self._channel.send({"t": "Taken", "inputs": records}, payloads)

    def yielded(self, input_id: str, payload: bytes, blob: dict[str, Any] | None) -> None:
        """Send one value of a generator."""
        header: dict[str, Any] = {"t": "Yielded", "input_id": input_id, "size": len(payload)}
        if blob is not None:
            header["blob"] = blob
        self._channel.send(header, [payload])

    def returned(self, input_ids: list[str]) -> None:
        self._channel.send({"t": "Returned", "input_ids": input_ids})

    def leaving(self) -> None:
        self._channel.send({"t": "Leaving"})

    def _send_reports(self) -> None:
        records, payloads = self._reports, self._reported
        self._reports, self._reported, self._reported_size = [], [], 0
        if records:
            self._channel.send({"t": "Outputs", "outputs": records}, payloads)

    def _send(self) -> None:
        if not self._records:
            return
        records, payloads = self._records, self._payloads
        self._records, self._payloads, self._size = [], [], 0
        self._channel.send({"t": "Outputs", "outputs": records}, payloads)
