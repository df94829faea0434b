"""Takes an answer apart while it grows: into the model's thoughts, and what it says.

A thought stands between two markers at the beginning of an answer; more may follow it. What looks like a marker
elsewhere is text: a model may write about such tags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from specee.app.engine.protocol import Channel
from specee.app.engine.stop_sequences import overlap

Place = Literal["beginning", "thought", "answer"]
Piece = tuple[Channel, str]


@dataclass(frozen=True)
class ThoughtForm:
    """How a model writes a thought: `begin` and `end` are its markers, without the spaces around them.

    `opening` and `closing` are what the chat template writes for them, with spaces: `closing` up to the answer.
    `heads`: what an answer may begin with, and what then ends it. `skipped`: what may stand before all of these.
    `tail` ends an answer that has no head. None of this is a part of the answer. `plain_opening` is what an answer
    without a thought begins with.
    """

    begin: str
    end: str
    opening: str = ""
    closing: str = ""
    heads: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()
    tail: str = ""
    plain_opening: str = ""

    @property
    def markers(self) -> tuple[str, ...]:
        """All that is no part of what a model thinks or says."""
        of_answers = (text for head in self.heads for text in head)
        return tuple(text for text in (self.begin, self.end, *self.skipped, self.tail, *of_answers) if text)

    @property
    def after_end(self) -> str:
        """What the template writes between a thought's end and the answer."""
        return self.closing.partition(self.end)[2]

    def with_names_as(self, names: Mapping[str, str]) -> ThoughtForm:
        """The same where other characters stand for the names of control tokens."""

        def changed(text: str) -> str:
            for name in sorted(names, key=len, reverse=True):
                text = text.replace(name, names[name])
            return text

        return replace(
            self,
            begin=changed(self.begin),
            end=changed(self.end),
            heads=tuple((changed(head), changed(tail)) for head, tail in self.heads),
            skipped=tuple(map(changed, self.skipped)),
            tail=changed(self.tail),
        )


class ThoughtSplitter:
    """Lets text through with its channel, but for what may be a part of a marker; spaces around thoughts are dropped.

    `form` None: nothing of the text is a thought. `place`: where the text begins; `goes_on`: with the rest of what has
    begun there. `stops`: nothing is read behind the end of the first thought.
    """

    def __init__(
        self, form: ThoughtForm | None, place: Place = "beginning", *, goes_on: bool = False, stops: bool = False
    ) -> None:
        self.has_thought = place == "thought"
        """Whether a thought has begun."""
        self.ended = False
        """Whether it `stops`, and a thought has ended."""
        self._form, self._stops = form, stops
        self._place: Place = "answer" if form is None else place
        self._held = ""
        self._is_new = place != "beginning" and not goes_on  # spaces come next that are no part of it
        self._is_apart = False  # a thought, a head or a tail stands before
        self._tail = form.tail if form is not None else ""
        self._has_text = goes_on and place == "thought"  # of a thought
        self._gap = ""  # before the next one

    @property
    def place(self) -> Place:
        """Where the text goes on; "beginning": it may become a thought or an answer."""
        return self._place

    @property
    def left(self) -> str:
        """What was not read: after `ended`, what follows the thought."""
        return self._held

    def add(self, text: str) -> list[Piece]:
        """More text; returns what it makes certain. Markers come as the empty text of a channel."""
        if self._form is None:
            return [("answer", text)] if text else []
        self._held += text
        pieces: list[Piece] = []
        while not self.ended:
            before = self._place, self._held, self._is_new
            pieces += self._step(self._form)
            if (self._place, self._held, self._is_new) == before:
                break
        return _joined(pieces)

    def end(self) -> list[Piece]:
        """No more text; returns what was held back."""
        text, self._held = self._held, ""
        if self._place == "beginning":
            text = text.lstrip() if self._is_apart else text
        elif self._is_new:
            text = text.lstrip()
        channel: Channel = "thought" if self._place == "thought" else "answer"
        return [(channel, self._gap + text)] if text else []

    def _step(self, form: ThoughtForm) -> list[Piece]:
        if self._place == "beginning":
            return self._at_beginning(form)
        return self._in_thought(form) if self._place == "thought" else self._in_answer()

    def _at_beginning(self, form: ThoughtForm) -> list[Piece]:
        text = self._held.lstrip()
        ends = (form.end,) if self.has_thought else ()  # a second one is nobody's
        markers = sorted({form.begin, *form.skipped, *ends, *(head for head, _ in form.heads)}, key=len, reverse=True)
        if any(len(text) < len(marker) and marker.startswith(text) for marker in markers):
            return []
        marker = next((marker for marker in markers if text.startswith(marker)), None)
        if marker is None:
            self._place, self._tail = "answer", form.tail
            self._held = text if self._is_apart else self._held
            return []
        self._held = text[len(marker) :]
        tails = dict(form.heads)
        if marker in tails:
            self._place, self._tail, self._is_new, self._is_apart = "answer", tails[marker], True, True
            return [("answer", "")]
        if marker == form.begin:
            self._place, self._is_new, self.has_thought = "thought", True, True
        return [("thought", "")]

    def _in_thought(self, form: ThoughtForm) -> list[Piece]:
        if self._is_new:  # the prompt may have begun it already
            text = self._held.lstrip()
            if len(text) < len(form.begin) and form.begin.startswith(text):
                return []
            self._held = text.removeprefix(form.begin)
            self._is_new = self._held != text
            return [("thought", "")] if self._is_new else []
        at = self._held.find(form.end)
        if at >= 0:
            text, self._held = self._held[:at].rstrip(), self._held[at + len(form.end) :]
            self._place, self._is_apart, self.ended = "beginning", True, self._stops
            text = self._gap + text if text else ""
            self._has_text = self._has_text or bool(text)
            self._gap = "\n\n" if self._has_text else ""
            return [("thought", text)]
        text = self._held[: len(self._held) - overlap(self._held, form.end)].rstrip()
        if not text:
            return []
        self._held, text = self._held[len(text) :], self._gap + text
        self._gap, self._has_text = "", True
        return [("thought", text)]

    def _in_answer(self) -> list[Piece]:
        if self._is_new:
            self._held = self._held.lstrip()
            if not self._held:
                return []
            self._is_new = False
        if not self._tail:
            text, self._held = self._held, ""
            return [("answer", text)]
        at = self._held.find(self._tail)
        if at >= 0:
            text, self._held = self._held[:at], self._held[at + len(self._tail) :]
            self._place, self._is_apart = "beginning", True
            return [("answer", text)]
        keep = overlap(self._held, self._tail)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return [("answer", text)] if text else []


def _joined(pieces: list[Piece]) -> list[Piece]:
    """One for each channel in turn."""
    found: list[Piece] = []
    for channel, text in pieces:
        if found and found[-1][0] == channel:
            found[-1] = channel, found[-1][1] + text
        else:
            found.append((channel, text))
    return found
