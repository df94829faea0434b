"""From token events to text that is safe to show."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence

from specee.app.engine.stop_sequences import StopSequences
from specee.app.engine.thought_splitter import Piece, ThoughtSplitter
from specee.predictors.types import TokenEvent, TokenState


class VerifiedText:
    """Releases an answer's text in order, once it is verified, in whole UTF-8 characters, thoughts apart.

    `stop`: texts that end what the model says. The token that completes one is its last, and nothing from the stop
    sequence on is released. `marks`: what stands for control tokens that the splitter looks for.
    """

    def __init__(
        self,
        piece: Callable[[int], bytes],
        stop: Sequence[str] = (),
        splitter: ThoughtSplitter | None = None,
        marks: Mapping[int, str] | None = None,
    ) -> None:
        self.splitter = splitter or ThoughtSplitter(None)
        self._piece = piece
        self._stop = StopSequences(stop)
        self._marks = marks or {}
        self._no_marks = str.maketrans("", "", "".join(self._marks.values()))
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._events: list[TokenEvent] = []  # the newest event of each index
        self._released = 0
        self._n_whole = 0
        """Tokens that end with a character."""

    def add(self, event: TokenEvent) -> list[Piece]:
        """Takes one event and returns the text that became final with it: often, not always, its own."""
        if self.stopped:
            return []
        if event.state is TokenState.ROLLED_BACK:
            assert event.index >= self._released, "verified text was rolled back"
            del self._events[event.index :]
            return []
        assert event.index <= len(self._events), "token events out of order"
        self._events[event.index : event.index + 1] = [event]
        pieces: list[Piece] = []
        while not self.stopped and not self.splitter.ended and self._is_verified(self._released):
            released = self._events[self._released]
            self._released += 1
            if not released.stop:
                pieces += self._split(self._decoder.decode(self._bytes(released.token)))
            if not self._decoder.getstate()[0]:
                self._n_whole = self._released
        return pieces

    def finish(self) -> list[Piece]:
        """What is left: an unfinished character, if the model ended there, and what might have become a stop sequence,
        or the mark of a thought.

        If it was stopped, its last character has not begun: the bytes come when the answer goes on.
        """
        ended = bool(self._released and self._events[self._released - 1].stop)
        pieces = self._split(self._decoder.decode(b"", final=True)) if ended else []
        if not self.stopped:
            pieces += self._until_stop(self.splitter.end())
        rest = self._stop.end()
        return [*pieces, ("answer", rest)] if rest else pieces

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence has come."""
        return self._stop.found

    @property
    def verified(self) -> list[TokenEvent]:
        """The tokens of the answer so far, in order, a stop token included."""
        return self._events[: self._released]

    @property
    def whole(self) -> list[TokenEvent]:
        """Those of them whose characters are all in the text."""
        return self._events[: self._n_whole]

    def _bytes(self, token: int) -> bytes:
        return self._marks[token].encode() if token in self._marks else self._piece(token)

    def _split(self, text: str) -> list[Piece]:
        return self._until_stop(self.splitter.add(text))

    def _until_stop(self, pieces: list[Piece]) -> list[Piece]:
        found: list[Piece] = []
        for channel, text in pieces:
            text = text.translate(self._no_marks) if self._marks else text
            found.append((channel, self._stop.add(text) if channel == "answer" else text))
        return found

    def _is_verified(self, index: int) -> bool:
        return index < len(self._events) and self._events[index].state is TokenState.VERIFIED
