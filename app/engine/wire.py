"""How messages travel between the two processes: JSON behind its length, checked against the message's type.

Whatever comes that is no message of ours is refused, and nothing in it is run. JSON because names of files may have
half surrogates (bytes that are not UTF-8), which other formats cannot carry.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any

import msgspec

from specee.app.engine import protocol
from specee.app.engine.protocol import OfRequest
from specee.app.errors import PROMPT_TOO_LONG, AppError

MAX_BYTES = 1 << 28
"""Of one message. A length beyond it is not a length: the two sides are out of step."""

_LENGTH = struct.Struct("<Q")
_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(protocol.Load, protocol.Generate, protocol.Cancel, protocol.GuardTerminal, protocol.Close),
        *(protocol.Calibrate, protocol.Train, protocol.Optimize, protocol.Bench, protocol.ReportMachine),
        protocol.MeasureSpeed,
        *(protocol.Alive, protocol.ModelLoaded, protocol.Progress, protocol.PromptProgress, protocol.Started),
        *(protocol.TokenEvents, protocol.Done, protocol.TaskPart, protocol.TaskDone, protocol.Failed, protocol.Notice),
    )
}


class WireError(Exception):
    """What came is no message."""


def encode(message: object) -> bytes:
    """A message as it travels. Raises AppError when it is too long."""
    request, inner = (message.request, message.message) if isinstance(message, OfRequest) else (None, message)
    content = msgspec.to_builtins(inner, enc_hook=_plain)
    body = json.dumps((type(inner).__name__, request, content), separators=(",", ":")).encode("ascii")
    if len(body) > MAX_BYTES:
        why = f"it takes {len(body) >> 20} MB; at most {MAX_BYTES >> 20} MB reach the model"
        raise AppError("prompt too long", why, PROMPT_TOO_LONG)
    return _LENGTH.pack(len(body)) + body


def write_message(stream: IO[bytes], message: object) -> None:
    """Sends one message; raises BrokenPipeError when nobody reads any more."""
    stream.write(encode(message))  # in one call, which other threads do not come between
    stream.flush()


def read_message(stream: IO[bytes]) -> Any:
    """Receives one message; raises EOFError when the other side is gone, also in the middle of a message."""
    (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))
    if length > MAX_BYTES:
        raise WireError(f"a message of {length} bytes")
    return _decode(_read_exactly(stream, length))


def _decode(body: bytes) -> Any:
    try:
        name, request, content = json.loads(body)
        message: Any = msgspec.convert(content, _TYPES[name])
        return message if request is None else OfRequest(msgspec.convert(request, int), message)
    except (ValueError, TypeError, LookupError, RecursionError, AppError) as error:  # AppError: by options.py
        raise WireError(f"{type(error).__name__}: {error}") from error


def _plain(value: Any) -> Any:
    """A number of NumPy's as Python's own."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not travel")


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data
