"""Text as it comes from outside: the bytes of a file, of a pipe or of an argument, in whatever encoding they are."""

from __future__ import annotations

import codecs
import os
from dataclasses import dataclass

from specee.app.errors import PROMPT_TOO_LONG, USAGE, AppError

LIMIT = 4 << 20  # bytes of one text: far more than the windows of models that run here

_MARKS = (  # UTF-32 first: its mark begins as that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_WESTERN = "Windows-1252"  # Latin-1 and the characters that Windows adds to it
_TEXT_CONTROLS = b"\t\n\r\f\v\b\x1b\x1a"
_NOT_TEXT = bytes(code for code in (*range(32), 127) if code not in _TEXT_CONTROLS)
_FEW = 8  # bytes beyond ASCII that a Western text may have whatever their share is
_WESTERN_SHARE = 0.4  # of bytes beyond ASCII; in texts of other alphabets nearly all are


@dataclass(frozen=True)
class DecodedText:
    """`doubt`: what a user should know of how the text was read; None where nothing was guessed."""

    text: str
    doubt: str | None = None


def decode(data: bytes, name: str) -> DecodedText:
    """The text in `data`, its lines ended by \\n. `name` says in errors and doubts whose text it is.

    UTF-8, and UTF-16 and UTF-32 by their marks. Without a mark UTF-16 shows by its zeros, and what can be nothing else
    is read as Windows-1252. Raises AppError for what is no text.
    """
    decoded = _decode(data, name)
    if "\0" in decoded.text:
        raise _no_text(name)
    return DecodedText(decoded.text.replace("\r\n", "\n").replace("\r", "\n"), decoded.doubt)


def argument(text: str, name: str) -> DecodedText:
    """A command-line argument that is text; what of it is not in the system's encoding, Python has as surrogates."""
    try:
        text.encode("utf-8")
        return DecodedText(text)
    except UnicodeEncodeError:
        pass
    try:
        return decode(os.fsencode(text), name)
    except UnicodeEncodeError:  # half a pair, as Windows may give it
        return DecodedText(_without_halves(text))


AS_WESTERN = "specee-western"
"""An error handler of codecs: bytes that are no text in an encoding are read as Windows-1252."""


def _as_western(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error(AS_WESTERN, _as_western)


def typed(line: str) -> str:
    """A line from a terminal; bytes that are not in its encoding, Python has as surrogates, which are no text."""
    try:
        return line.encode("utf-8", "surrogateescape").decode("utf-8", AS_WESTERN)
    except UnicodeEncodeError:
        return _without_halves(line)


def _without_halves(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def too_large(name: str) -> AppError:
    """For a text of more than LIMIT bytes."""
    return AppError("the prompt does not fit", f"{name} is larger than {LIMIT >> 20} MiB; send a part", PROMPT_TOO_LONG)


def _decode(data: bytes, name: str) -> DecodedText:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return DecodedText(data.decode(encoding))
            except UnicodeDecodeError:
                if encoding != "utf-8-sig":
                    raise _no_text(name) from None
    if (order := _utf16_by_zeros(data)) is not None:
        try:
            return DecodedText(data.decode(order))
        except UnicodeDecodeError:
            raise _no_text(name) from None
    try:
        return DecodedText(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _not_quite_utf8(data, name, error)


def _utf16_by_zeros(data: bytes) -> str | None:
    """UTF-16 without a mark, where most characters are ASCII: every other byte is zero, and none of the rest."""
    even, odd = data[0::2], data[1::2]
    if len(data) % 2 or len(data) < 4:
        return None
    if odd.count(0) > len(odd) / 2 and not even.count(0):
        return "utf-16-le"
    if even.count(0) > len(even) / 2 and not odd.count(0):
        return "utf-16-be"
    return None


def _not_quite_utf8(data: bytes, name: str, error: UnicodeDecodeError) -> DecodedText:
    """UTF-8 with some bytes wrong, such as a character cut at its end; or Windows-1252."""
    replaced = data.decode("utf-8", "replace")
    wrong = replaced.count("\ufffd")
    right = sum(character > "\x7f" for character in replaced) - wrong
    if error.reason == "unexpected end of data" and (right or len(data) - error.start > 1):
        begun = data[: error.start].decode("utf-8")  # this was the first error, so all before it is right
        return DecodedText(begun, f"{name} ends in the middle of a character, which was left out")
    if right >= wrong:
        return DecodedText(replaced, f"{name} has bytes that are not UTF-8; \ufffd stands for them")
    if data.translate(None, _NOT_TEXT) != data:
        raise _no_text(name)
    beyond = sum(byte > 0x7F for byte in data)
    if beyond > _FEW and beyond > _WESTERN_SHARE * len(data):
        raise _unknown(name)
    try:
        return DecodedText(data.decode("cp1252"), f"{name} is not UTF-8; it was read as {_WESTERN}")
    except UnicodeDecodeError:
        raise _unknown(name) from None


def _no_text(name: str) -> AppError:
    return AppError("not a text", f"{name} is not text; only text can be sent", USAGE)


def _unknown(name: str) -> AppError:
    return AppError("unknown encoding", f"{name} is not UTF-8; convert it first, as with iconv -t UTF-8", USAGE)
