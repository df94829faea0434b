"""A limit on how much of an answer is read, whatever the server says of its length.

huggingface_hub reads answers whole, those with an error and those that send elsewhere, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

MOST = 8 << 20  # bytes of an answer that is no file; a repository of ten thousand files has one of a megabyte
_FILE_STATUS = (200, 206)


class TooLong(Exception):  # noqa: N818 - reads as what it is
    """An answer goes on beyond its limit."""


class Encoded(Exception):  # noqa: N818
    """An answer is compressed, though it must not be: a few bytes could become any number."""


_file_limit: ContextVar[int | None] = ContextVar("_file_limit", default=None)


@contextmanager
def limited(file_bytes: int = MOST) -> Iterator[None]:
    """Inside, no answer is read beyond its limit: `file_bytes` for one that brings what was asked for.

    Raises TooLong or Encoded from the call that reads it.
    """
    from huggingface_hub import get_session

    hooks = get_session().event_hooks
    if _limit not in hooks["response"]:
        hooks["request"].append(_ask_for_plain_bytes)
        hooks["response"].append(_limit)
    token = _file_limit.set(file_bytes)
    try:
        yield
    finally:
        _file_limit.reset(token)


def _ask_for_plain_bytes(request: Any) -> None:
    if _file_limit.get() is not None:
        request.headers["Accept-Encoding"] = "identity"


def _limit(response: Any) -> None:
    """Called when the head of an answer is there, and nothing of its body."""
    limit = _file_limit.get()
    if limit is None:
        return
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise Encoded
    response.stream = _bounded(response.stream, limit if response.status_code in _FILE_STATUS else MOST)


def _bounded(stream: Any, limit: int) -> Any:
    """The same stream, of the HTTP client's own type: which client that is changes with huggingface_hub."""
    base: Any = next(one for one in type(stream).__mro__ if one.__name__ == "SyncByteStream")

    class Bounded(base):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            n = 0
            for piece in stream:
                n += len(piece)
                if n > limit:
                    raise TooLong
                yield piece

        def close(self) -> None:
            stream.close()

    return Bounded()
