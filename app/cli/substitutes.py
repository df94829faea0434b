"""What stands for a character that the encoding of an output lacks: what people write for it in ASCII, or ?."""

from __future__ import annotations

import codecs
import unicodedata

_PICTURES = 0x2400  # Unicode's pictures of the control characters
_ASCII = {
    **dict.fromkeys("‘’‚‹›′", "'"),  # noqa: RUF001
    **dict.fromkeys("“”„«»″", '"'),
    **dict.fromkeys("‐‑‒–—―−─━", "-"),  # noqa: RUF001
    **dict.fromkeys("│┃", "|"),
    **dict.fromkeys("•·∙▪●", "*"),
    "×": "x",  # noqa: RUF001
    "÷": "/",
    "\u2044": "/",
    "→": "->",
    "←": "<-",
    "⇒": "=>",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "€": "EUR",
    "ß": "ss",
    "ø": "o",
    "Ø": "O",
    "ł": "l",
    "Ł": "L",
    "đ": "d",
    "Đ": "D",
    "ı": "i",  # noqa: RUF001
    "æ": "ae",
    "Æ": "AE",
    "œ": "oe",
    "Œ": "OE",
    "þ": "th",
    "Þ": "Th",
    "ð": "d",
    "Ð": "D",
    **{chr(_PICTURES + code): f"^{chr(code + 64)}" for code in range(32)},
    "\u2421": "^?",
}


class Substitutes:
    """An error handler of codecs, and whether it had to do anything."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.used = False
        codecs.register_error(name, self._substitute)

    def _substitute(self, error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        self.used = True
        return "".join(map(in_ascii, error.object[error.start : error.end])), error.end


def in_ascii(character: str) -> str:
    """Letters without their accents, signs as they are typed; nothing for what only joins or marks others."""
    if (known := _ASCII.get(character)) is not None:
        return known
    plain = "".join(_ASCII.get(part, part) for part in unicodedata.normalize("NFKD", character))
    plain = "".join(part for part in plain if unicodedata.category(part) not in ("Mn", "Me", "Cf"))
    if plain.isascii():
        return plain
    return "?"
