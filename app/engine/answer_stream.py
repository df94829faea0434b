"""One answer as it grows: events for the user, times, and the figures at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from specee.app.engine.protocol import ChatEvent, Emit, TokenEvents, TokenLogprob
from specee.app.engine.verified_text import VerifiedText
from specee.predictors.types import TokenEvent, TokenState

FLUSH_SECONDS = 0.03  # tokens closer together than this travel together


class Piece(Protocol):
    """The bytes of a token, see `Backend.piece`."""

    def __call__(self, token: int, /, *, special: bool = False) -> bytes: ...


class AnswerStream:
    """Takes a policy's token events, sends chat events in small batches. Times count from `began`.

    What comes after a text of `stop` is ignored: see VerifiedText.
    """

    def __init__(self, piece: Piece, emit: Emit, began: float, stop: Sequence[str] = ()) -> None:
        self.first_at: float | None = None
        self._piece, self._emit, self._began = piece, emit, began
        self._verified = VerifiedText(piece, stop)
        self._batch: list[ChatEvent] = []
        self._sent_at = 0.0

    def add(self, event: TokenEvent) -> None:
        """One more event of the policy."""
        if self.stopped:
            return
        now = time.perf_counter()
        if self.first_at is None:
            self.first_at = now
        released = self._verified.add(event)
        if event.state is TokenState.VERIFIED:
            text = released
        elif event.state is TokenState.PROVISIONAL and not event.stop:
            text = self._piece(event.token).decode("utf-8", "replace")
        else:
            text = ""
        logprobs = tuple(TokenLogprob(each, self._piece(each, special=True), p) for each, p in event.logprobs)
        self._batch.append(
            ChatEvent(
                index=event.index,
                text=text,
                token=event.token,
                exit_layer=event.exit_layer,
                state=event.state.value,
                t=round(now - self._began, 6),
                scores=tuple((p.layer, p.score) for p in event.probes),
                candidates=tuple(int(c) for c in event.candidates),
                stop=event.stop,
                drafter=event.drafter,
                logprob=logprobs[0] if logprobs else None,
                top_logprobs=logprobs[1:],
            )
        )
        if now - self._sent_at >= FLUSH_SECONDS:
            self.flush(now)

    def flush(self, now: float | None = None) -> None:
        """Sends what has not been sent yet."""
        if self._batch:
            self._emit(TokenEvents(tuple(self._batch)))
            self._batch = []
            self._sent_at = time.perf_counter() if now is None else now

    def finish(self) -> None:
        """The policy is done: releases the rest of the text, and sends it."""
        tail = self._verified.finish()
        if tail:
            last = self._verified.verified[-1]
            now = time.perf_counter() - self._began
            state = TokenState.VERIFIED.value
            # the last token again, with the end of the text
            self._batch.append(
                ChatEvent(last.index, tail, last.token, last.exit_layer, state, round(now, 6), stop=last.stop)
            )
        self.flush()

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence has come."""
        return self._verified.stopped

    @property
    def events(self) -> list[TokenEvent]:
        """The verified tokens in order, a stop token included."""
        return self._verified.verified

    @property
    def whole(self) -> tuple[str, list[int]]:
        """Text and tokens as far as the last token that ends with a character, without the stop token."""
        tokens = [event.token for event in self._verified.whole if not event.stop]
        return b"".join(map(self._piece, tokens)).decode("utf-8", "replace"), tokens
