"""From token events to text that is safe to show."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

from specee.app.engine.stop_sequences import StopSequences
from specee.predictors.types import TokenEvent, TokenState


class VerifiedText:
    """Releases an answer's text in order, once it is verified, in whole UTF-8 characters.

    `stop`: texts that end the answer. The token that completes one is its last, and nothing from the stop sequence on
    is released.
    """

    def __init__(self, piece: Callable[[int], bytes], stop: Sequence[str] = ()) -> None:
        self._piece = piece
        self.text = ""
        """That of the verified tokens, a stop sequence included."""
        self._stop = StopSequences(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._events: list[TokenEvent] = []  # the newest event of each index
        self._released = 0

    def add(self, event: TokenEvent) -> str:
        """Takes one event and returns the text that became final with it: often, not always, its own."""
        if self.stopped:
            return ""
        if event.state is TokenState.ROLLED_BACK:
            assert event.index >= self._released, "verified text was rolled back"
            del self._events[event.index :]
            return ""
        assert event.index <= len(self._events), "token events out of order"
        self._events[event.index : event.index + 1] = [event]
        text = ""
        while not self.stopped and self._is_verified(self._released):
            released = self._events[self._released]
            self._released += 1
            if not released.stop:
                text += self._release(self._decoder.decode(self._piece(released.token)))
        return text

    def finish(self) -> str:
        """What is left: an unfinished character, and what might have become a stop sequence."""
        return self._release(self._decoder.decode(b"", final=True)) + self._stop.end()

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence has come."""
        return self._stop.found

    @property
    def verified(self) -> list[TokenEvent]:
        """The tokens of the answer so far, in order, a stop token included."""
        return self._events[: self._released]

    def _is_verified(self, index: int) -> bool:
        return index < len(self._events) and self._events[index].state is TokenState.VERIFIED

    def _release(self, text: str) -> str:
        self.text += text
        return self._stop.add(text)
