"""Long texts that are pasted into the prompt: a short mark stands for each, so that no key lays them out again."""

from __future__ import annotations

import re

from specee.app.formatting import size

LONG = 16_000  # characters in the prompt; laying out a line of so many takes about a twentieth of a second


class PastedTexts:
    """The texts by their marks."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def fold(self, text: str) -> str:
        """The mark that stands for a text from now on."""
        for mark, known in self._texts.items():
            if known == text:
                return mark
        n_lines = text.count("\n") + 1
        lines = f"{n_lines:,} line{'s' if n_lines > 1 else ''}"
        mark = f"[pasted text {len(self._texts) + 1}: {lines}, {size(len(text.encode('utf-8', 'replace')))}]"
        self._texts[mark] = text
        return mark

    def unfold(self, text: str) -> str:
        """With the texts instead of their marks."""
        if not self._texts:
            return text
        return re.sub("|".join(map(re.escape, self._texts)), lambda found: self._texts[found[0]], text)

    def fold_again(self, text: str) -> str:
        """With marks instead of the texts that it has; where it is long even then, a mark stands for all of it."""
        if len(text) <= LONG:
            return text
        for mark, pasted in self._texts.items():
            text = text.replace(pasted, mark)
        return text if len(text) <= LONG else self.fold(text)
