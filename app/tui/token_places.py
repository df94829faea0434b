"""Where the tokens of an answer stand: in its text, and in the lines that Markdown makes of it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from specee.app.tui.wrapping import Line

NEAR = 80  # characters of the text, after the last word that was found, in which the next one is sought
_WORD = re.compile(r"\w+")
NOWHERE = -1


class TokenPlaces:
    """Tokens and the text that they are the end of, or that is theirs without the thought before it."""

    def __init__(self, tokens: Sequence[str], text: str) -> None:
        together = "".join(tokens)
        if together.endswith(text) or text.endswith(together):
            shift = len(text) - len(together)
        else:
            found = together.find(text[:NEAR])
            shift = -found if found >= 0 else len(text)  # tokens of another text: none is in this one
        self._starts = list(accumulate(map(len, tokens), initial=shift))

    def token_at(self, offset: int) -> int | None:
        """The index of the token with this character of the text; None where none has it."""
        index = bisect_right(self._starts, offset) - 1
        return index if 0 <= index < len(self._starts) - 1 else None

    def span(self, token: int) -> tuple[int, int]:
        """The characters of a token: from, and up to before."""
        return self._starts[token], self._starts[token + 1]


def offsets(lines: Sequence[Line], text: str) -> list[list[int]]:
    """For each character of each line where it stands in the text that the lines were made of; NOWHERE if it does not.

    Markdown leaves out signs and adds some; words stay, in their order.
    """
    found: list[list[int]] = []
    place = 0
    for line in lines:
        shown, at = line.text.plain, 0
        row: list[int] = []
        for word in _WORD.finditer(shown):
            place = _signs(shown[at : word.start()], text, place, row)
            begin = text.find(word[0], place, place + NEAR + len(word[0]))
            if begin < 0:
                row += [NOWHERE] * len(word[0])
            else:
                place = begin + len(word[0])
                row += range(begin, place)
            at = word.end()
        place = _signs(shown[at:], text, place, row)
        found.append(row)
    return found


def _signs(signs: str, text: str, place: int, row: list[int]) -> int:
    """Places of what stands between two words; none is sought beyond the next word of the text."""
    for sign in signs:
        at = place
        while at < len(text) and text[at] != sign and not _WORD.match(text[at]):
            at += 1
        if at < len(text) and text[at] == sign:
            row.append(at)
            place = at + 1
        else:
            row.append(NOWHERE)
    return place
