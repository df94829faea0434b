"""How a chat template ends the prompt for an answer: what must come before an answer is there, what ends one is not.

Some templates take no notice of `add_generation_prompt`, and stop behind the question; some write the end of a turn
behind all that they were given, so that a model would be asked to go on with an answer that is over.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_THOUGHT = re.compile(r"\s*[<\[◁|]*/?(?:\w+:)?(?:think|thought|reason)", re.IGNORECASE)


@dataclass(frozen=True)
class PromptEnding:
    """`missing` comes behind the text of a template; before that, `surplus` is taken from its end."""

    missing: str = ""
    surplus: tuple[str, ...] = ()

    def __call__(self, text: str) -> str:
        if self.surplus:
            bare = text.rstrip()
            while found := next((each for each in self.surplus if bare.endswith(each)), None):
                text = bare = bare.removesuffix(found).rstrip(" ")
        if self.missing and not text.endswith(self.missing):
            text += self.missing
        return text


def find_ending(render: Callable[[bool, bool], str], question: str, answer: str, eos: str) -> PromptEnding:
    """`render`: a chat of `question`, with an `answer` or without, then with add_generation_prompt or without; `eos`:
    what ends a text."""
    asked, answered = render(False, True), render(True, False)
    if question not in asked or answer not in answered:
        return PromptEnding()
    tail = asked.rpartition(question)[2]
    before, _, rest = answered.partition(answer)
    between = before.rpartition(question)[2]
    behind = rest.strip()
    if not between.startswith(tail.rstrip()):
        ends = tuple(each for each in dict.fromkeys((eos, behind)) if each and tail.rstrip().endswith(each))
        kept = PromptEnding("", ends)
        rest_of = kept(tail)
        return kept if ends and between.startswith(rest_of.rstrip()) else PromptEnding()
    if asked != render(False, False):
        return PromptEnding()
    missing = between[len(tail) :] if between.startswith(tail) else between[len(tail.rstrip()) :]
    found = _THOUGHT.search(missing)
    missing = missing if found is None else missing[: found.start()]
    return PromptEnding(missing) if missing.strip() else PromptEnding()
