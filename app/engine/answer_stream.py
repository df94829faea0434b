"""One answer as it grows: events for the user, times, and what the figures at the end are made of."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from specee.app.engine.protocol import Channel, ChatEvent, Emit, TokenEvents, TokenLogprob
from specee.app.engine.thought_splitter import ThoughtSplitter
from specee.app.engine.verified_text import VerifiedText
from specee.predictors.types import TokenEvent, TokenState

FLUSH_SECONDS = 0.03  # tokens closer together than this travel together

Turn = Literal["thought", "ended", "answers"]
"""Why the answer must go on in another way: its thought is too long, its thought has ended, it does not think."""


class TokenText(Protocol):
    """The bytes of a token, see `Backend.piece`."""

    def __call__(self, token: int, /, *, special: bool = False) -> bytes: ...


class AnswerStream:
    """Takes a policy's token events, sends chat events in small batches. Times count from `began`.

    What comes after a text of `stop` is ignored: see VerifiedText. As long as it is open whether a token belongs to a
    thought or to the answer, its events wait. An answer may come in several runs of a policy: see `begin_run`.
    `think_tokens`: with so many tokens a thought is to be ended, which `turn` then says.
    """

    def __init__(
        self,
        piece: TokenText,
        emit: Emit,
        began: float,
        stop: Sequence[str] = (),
        marks: Mapping[int, str] | None = None,
        think_tokens: int | None = None,
    ) -> None:
        self.first_at: float | None = None
        self.thought_tokens = 0
        self.thought_ended_at: float | None = None
        """When the last token of a thought came."""
        self.turn: Turn | None = None
        self._piece, self._emit, self._began, self._stop = piece, emit, began, stop
        self._marks, self._think_tokens = marks or {}, think_tokens
        self._said: dict[Channel, str] = {"thought": "", "answer": ""}
        self._before: list[TokenEvent] = []  # tokens of earlier runs
        self._batch: list[ChatEvent] = []
        self._open: list[ChatEvent] = []  # whose channel is not known yet
        self._counted = 0  # tokens whose channel is known
        self._sent_at = 0.0
        self.begin_run(ThoughtSplitter(None))

    def begin_run(self, splitter: ThoughtSplitter, *, turns_to_answer: bool = False) -> None:
        """The tokens that come next are those of another run, which goes on behind the tokens before.

        `turns_to_answer`: this one is only for thoughts; where an answer begins, `turn` says so.
        """
        self._verified = VerifiedText(self._piece, self._stop, splitter, self._marks)
        self._turns_to_answer, self.turn = turns_to_answer, None

    def keep_run(self) -> None:
        """The run is over, and its tokens stand, without a stop token."""
        self._send_open("thought")
        self._before += [event for event in self._verified.verified if not event.stop]

    def drop_run(self) -> None:
        """The run is over, and none of its tokens stands: nothing of them was sent."""
        self._open.clear()

    def replay(self, tokens: Sequence[int], n_layers: int) -> None:
        """The first tokens of the run, which were sent before: nothing of them is sent again."""
        emit, self._emit = self._emit, lambda message: None
        for i, token in enumerate(tokens):
            self.add(TokenEvent(i, token, n_layers, TokenState.VERIFIED))
        self.flush()
        self._emit, self.first_at = emit, None

    def add(self, event: TokenEvent) -> None:
        """One more event of the policy."""
        if self.stopped or self.turn is not None:
            return
        now = time.perf_counter()
        if self.first_at is None:
            self.first_at = now
        pieces = self._verified.add(event)
        splitter = self._verified.splitter
        if self._turns_to_answer and splitter.place == "answer":
            self.turn = "answers"
            return
        for chat_event in self._chat_events(event, pieces, now):
            if splitter.place == "beginning" and not pieces:
                self._open.append(chat_event)
            else:
                self._send_open(chat_event.channel)
                self._send(chat_event, now)
        if splitter.ended:
            self.turn = "ended"
        elif splitter.place == "thought" and self._think_tokens is not None:
            self.turn = "thought" if self.thought_tokens >= self._think_tokens else None
        if now - self._sent_at >= FLUSH_SECONDS:
            self.flush(now)

    def _chat_events(self, event: TokenEvent, pieces: Sequence[tuple[Channel, str]], now: float) -> list[ChatEvent]:
        channel: Channel = "thought" if self._verified.splitter.place == "thought" else "answer"
        text = ""
        if event.state is TokenState.PROVISIONAL and not event.stop:
            text = self._piece(event.token).decode("utf-8", "replace")
        logprobs = tuple(TokenLogprob(each, self._piece(each, special=True), p) for each, p in event.logprobs)
        return [
            ChatEvent(
                index=len(self._before) + event.index,
                text=text,
                token=event.token,
                exit_layer=event.exit_layer,
                state=event.state.value,
                t=round(now - self._began, 6),
                scores=tuple((p.layer, p.score) for p in event.probes),
                candidates=tuple(int(c) for c in event.candidates),
                candidate_texts=tuple(self._piece(c).decode("utf-8", "replace") for c in event.candidates),
                stop=event.stop,
                drafter=event.drafter,
                logprob=logprobs[0] if logprobs else None,
                top_logprobs=logprobs[1:],
                channel=channel,
            )
            for channel, text in pieces or [(channel, text)]
        ]

    def _send_open(self, channel: Channel) -> None:
        for event in self._open:
            self._send(replace(event, channel=channel), self._began + event.t)
        self._open.clear()

    def _send(self, event: ChatEvent, now: float) -> None:
        if event.state == TokenState.VERIFIED.value:
            self._said[event.channel] += event.text
            self.thought_ended_at = now if event.channel == "thought" else self.thought_ended_at
        if event.state == TokenState.VERIFIED.value and event.index >= self._counted and not event.stop:
            self._counted = event.index + 1
            self.thought_tokens += event.channel == "thought"
        self._batch.append(event)

    def flush(self, now: float | None = None) -> None:
        """Sends what has not been sent yet."""
        if self._batch:
            self._emit(TokenEvents(tuple(self._batch)))
            self._batch = []
            self._sent_at = time.perf_counter() if now is None else now

    def finish(self) -> None:
        """The policy is done: releases the rest of the text, and sends it."""
        pieces = self._verified.finish() if self.turn is None else []
        if self.turn != "answers":
            self._send_open(pieces[0][0] if pieces else "thought" if self.before_answer else "answer")
        for channel, text in pieces:
            if text:
                last = self._verified.verified[-1]
                now = time.perf_counter()
                state, t = TokenState.VERIFIED.value, round(now - self._began, 6)
                # the last token again, with the end of the text
                index = len(self._before) + last.index
                again = ChatEvent(index, text, last.token, last.exit_layer, state, t, stop=last.stop, channel=channel)
                self._send(again, now)
        self.flush()

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence has come."""
        return self._verified.stopped

    @property
    def in_thought(self) -> bool:
        """Whether the last token belongs to a thought that has not ended."""
        return self._verified.splitter.place == "thought"

    @property
    def before_answer(self) -> bool:
        """Whether it thinks or has thought, and has not begun to answer."""
        splitter = self._verified.splitter
        return splitter.has_thought and splitter.place != "answer"

    @property
    def said(self) -> tuple[str, str]:
        """The final text that was sent, of the thought and of the answer."""
        return self._said["thought"], self._said["answer"]

    @property
    def left(self) -> str:
        """What its last token has behind the end of a thought."""
        return self._verified.splitter.left

    @property
    def events(self) -> list[TokenEvent]:
        """The verified tokens in order, a stop token included."""
        return [*self._before, *self._verified.verified]

    @property
    def whole(self) -> tuple[str, list[int]]:
        """Text and tokens of the run as far as the last token that ends with a character, without the stop token.

        Control tokens that are marks of thoughts are in the text by their names.
        """
        tokens, pieces = self._tokens_and_pieces()
        return b"".join(pieces).decode("utf-8", "replace"), tokens

    @property
    def has_hidden(self) -> bool:
        """Whether some of these tokens are not in the text: control tokens that are no marks."""
        return not all(self._tokens_and_pieces()[1])

    def _tokens_and_pieces(self) -> tuple[list[int], list[bytes]]:
        tokens = [event.token for event in self._verified.whole if not event.stop]
        return tokens, [self._piece(token, special=token in self._marks) for token in tokens]
