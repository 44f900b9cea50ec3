"""Frames: a small JSON header and an opaque body.

    frame            u32be header length | header, UTF-8 JSON object | body
    stream sockets   u32be frame length | frame

A WebSocket keeps message borders itself, so there one binary message is one frame. Pure: no sockets, no event loop.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Callable, NoReturn, Union

from .._signals import is_from_handler
from .errors import TooLarge, WireError

HEADER_LIMIT = 1024 * 1024  #: bytes of header JSON
FRAME_LIMIT = 16 * 1024 * 1024  #: bytes of a frame, without the length before it
READ_SIZE = 64 * 1024  #: bytes to read at a time; above 128 KiB malloc maps and unmaps memory for each read

Buffer = Union[bytes, bytearray, memoryview]

_LENGTH = struct.Struct(">I")
_SMALLEST = _LENGTH.size + len("{}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value - value != 0:
        raise ValueError(f"{digits} is too large")
    return value


_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False)


def _dumper() -> Callable[[Any], str]:
    """`_encoder.encode`, which makes a new encoder in C for every message; here all share one, where there is one."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return _encoder.encode
    write = make(None, _encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(write(value, 0))


_dump = _dumper()
_load = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).raw_decode


def pack_header(header: dict[str, Any]) -> bytes:
    """Return the part of a frame before its body.

    Raises:
        WireError: the header holds values JSON does not have, text that is not Unicode, or is over `HEADER_LIMIT`.
    """
    try:
        raw = _dump(header).encode("utf-8")
    except UnicodeEncodeError:
        raise WireError("The message holds text that is not valid Unicode, such as an undecodable file name.") from None
    except (TypeError, ValueError, RecursionError) as error:
        if is_from_handler(error):
            raise
        raise WireError(f"The message cannot be written as JSON: {error}.") from None
    if len(raw) > HEADER_LIMIT:
        raise TooLarge(f"The message header has {len(raw)} bytes; the limit is {HEADER_LIMIT}.")
    return _LENGTH.pack(len(raw)) + raw


def pack(header: dict[str, Any], body: Buffer = b"") -> bytes:
    """Return a whole frame.

    Raises:
        WireError: as `pack_header`, or the frame is over `FRAME_LIMIT`.
    """
    head = pack_header(header)
    if len(head) + len(body) > FRAME_LIMIT:
        raise TooLarge(f"The message has {len(head) + len(body)} bytes; the limit is {FRAME_LIMIT}.")
    return b"".join((head, body))


def unpack(data: Buffer) -> tuple[dict[str, Any], memoryview]:
    """Split a frame into its header and its body, which is a view into `data`.

    Raises:
        WireError: `data` is not a frame, or is over a limit.
    """
    size = len(data)
    if size > FRAME_LIMIT:
        raise TooLarge(f"A frame of {size} bytes arrived; the limit is {FRAME_LIMIT}.")
    if size < _SMALLEST:
        raise WireError(f"A frame of {size} bytes arrived, which is too short to be one.")
    (length,) = _LENGTH.unpack_from(data)
    if length > HEADER_LIMIT:
        raise TooLarge(f"A frame header of {length} bytes arrived; the limit is {HEADER_LIMIT}.")
    stop = _LENGTH.size + length
    if stop > size:
        raise WireError(f"A frame of {size} bytes arrived that announces a header of {length} bytes.")
    view = memoryview(data)
    raw = view[_LENGTH.size : stop]
    try:
        text = str(raw, "utf-8")
        header, end = _load(text)
        if end != len(text):
            raise ValueError("data after the object")
        if "\\" in text and ("\\ud" in text or "\\uD" in text):
            _dump(header).encode("utf-8")  # an escaped half of a surrogate pair is no text, and breaks stores later
    except (ValueError, RecursionError) as error:
        if is_from_handler(error):
            raise
        raise WireError("A frame arrived whose header is not valid JSON.") from None
    if type(header) is not dict:
        raise WireError("A frame arrived whose header is not a JSON object.")
    return header, view[stop:]


def length_prefixed(frame: Buffer) -> bytes:
    """Return `frame` as it goes over a stream socket."""
    return b"".join((_LENGTH.pack(len(frame)), frame))


class FrameDecoder:
    """Cuts the bytes of a stream socket into frames.

    Memory is held for what has arrived, never for what a length announces. After an error it stays broken.
    """

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        """Args: limit: the largest frame accepted, in bytes."""
        self._limit = limit
        self._kept = bytearray()  # the start of a frame whose end has not arrived
        self._needed = 0  # bytes of `_kept` from which on it is worth looking at again
        self.error: WireError | None = None  #: why nothing more can be read

    def feed(self, data: Buffer) -> list[memoryview]:
        """Take the next bytes of the stream and return the frames that they complete.

        Frames may be views into `data`, which must not be changed afterwards.

        Raises:
            WireError: a length is impossible or over the limit. Where `data` completes frames before that, they are
                returned, `error` is set, and the next call raises.
        """
        if self.error:
            raise self.error
        if self._needed:
            self._kept += data
            if len(self._kept) < self._needed:
                return []
            data, self._kept = self._kept, bytearray()
            self._needed = 0
        frames: list[memoryview] = []
        view = memoryview(data)
        position, end = 0, len(data)
        missing = _LENGTH.size
        while end - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, position)
            if not _SMALLEST <= length <= self._limit:
                self.error = _impossible(length, self._limit)
                if not frames:
                    raise self.error
                return frames
            stop = position + _LENGTH.size + length
            if stop > end:
                missing = _LENGTH.size + length
                break
            frames.append(view[position + _LENGTH.size : stop])
            position = stop
        if position < end:
            self._kept += view[position:]
            self._needed = missing
        return frames


def _impossible(length: int, limit: int) -> WireError:
    if length > limit:
        return TooLarge(f"A frame of {length} bytes was announced; the limit is {limit}.")
    return WireError(f"A frame of {length} bytes was announced, which is too short to be one.")
