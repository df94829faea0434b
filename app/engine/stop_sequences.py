"""Texts that end an answer, and are no part of it."""

from __future__ import annotations

from collections.abc import Sequence


class StopSequences:
    """Lets text through, except for what may be the beginning of a stop sequence."""

    def __init__(self, sequences: Sequence[str]) -> None:
        self.found = False
        self._sequences = sequences
        self._held = ""

    def add(self, text: str) -> str:
        """More text; returns what certainly stands before any stop sequence. After `found`, nothing more."""
        if self.found:
            return ""
        self._held += text
        places = [at for at in map(self._held.find, self._sequences) if at >= 0]
        if places:
            self.found = True
            released, self._held = self._held[: min(places)], ""
            return released
        keep = max((overlap(self._held, sequence) for sequence in self._sequences), default=0)
        end = len(self._held) - keep
        released, self._held = self._held[:end], self._held[end:]
        return released

    def end(self) -> str:
        """No more text; returns what was held back."""
        released, self._held = self._held, ""
        return released


def overlap(text: str, sequence: str) -> int:
    """How many characters at the end of `text` are the beginning of `sequence`."""
    most = min(len(text), len(sequence) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(sequence[:n])), 0)
