"""Texts as they are compared in a search: without capitals, accents and other differences that people leave out."""

from __future__ import annotations

import unicodedata

_ALIKE = {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}  # noqa: RUF001
"""Letters with a sign that Unicode does not take apart."""


class _Table(dict[int, str]):
    """What stands for a character, for str.translate; characters are looked up when they occur.

    Left out are accents, the points of Hebrew and Arabic, and what is invisible. The marks of other scripts are
    letters: vowels and tones (Indic, Thai), voiced sounds (Japanese).
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        mark = unicodedata.combining(character)
        left_out = mark == 1 or 10 <= mark <= 36 or mark >= 200 or 0xFE00 <= code <= 0xFE0F
        left_out = left_out or unicodedata.category(character) == "Cf"
        self[code] = "" if left_out else _ALIKE.get(character, character)
        return self[code]


_TABLE = _Table()


def fold(text: str) -> str:
    """Two texts that a search takes as one have the same form: "Café" and "cafe", full-width and other letters."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFC", apart.translate(_TABLE))


def fold_stored(content: bytes | None) -> str:
    """The same for what a file has, which others may have changed."""
    return fold((content or b"").decode("utf-8", "replace"))


def place(text: str, word: str) -> int | None:
    """Where in a text a folded word begins, about; None if it is not in it."""
    folded = fold(text)
    if word not in folded:
        return None
    if text.isascii():
        return folded.find(word)
    least, most = 0, len(text)  # the shortest beginning of the text that has the word ends with it
    while least < most:
        middle = (least + most) // 2
        if word in fold(text[:middle]):
            most = middle
        else:
            least = middle + 1
    return max(0, least - len(word))
