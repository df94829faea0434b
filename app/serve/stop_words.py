"""Texts that end an answer before they are said."""

from __future__ import annotations

from collections.abc import Sequence


class StopWords:
    """Lets text through, except for what may be the beginning of a stop word."""

    def __init__(self, words: Sequence[str]) -> None:
        self.found = False
        self._words = words
        self._held = ""

    def add(self, text: str) -> str:
        """More text; returns what is certain to stand before any stop word. After `found`, nothing more."""
        if self.found:
            return ""
        self._held += text
        places = [at for at in map(self._held.find, self._words) if at >= 0]
        if places:
            self.found = True
            said, self._held = self._held[: min(places)], ""
            return said
        keep = max((_overlap(self._held, word) for word in self._words), default=0)
        said, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return said

    def end(self) -> str:
        """No more text; returns what was held back."""
        said, self._held = self._held, ""
        return said


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of `text` are the beginning of `word`."""
    return next((n for n in range(min(len(text), len(word) - 1), 0, -1) if text.endswith(word[:n])), 0)
