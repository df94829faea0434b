"""A session with a scripted engine, and helpers for tests of the screen."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import Any

from textual.pilot import Pilot

from specee.app.chat.history.store import Store
from specee.app.chat.session import Session
from specee.app.engine.protocol import (
    Cancel,
    ChatEvent,
    Done,
    Failed,
    Generate,
    Load,
    ModelInfo,
    ModelLoaded,
    OfRequest,
    Progress,
    PromptProgress,
    Started,
    Stats,
    TokenEvents,
)
from specee.app.errors import AppError
from specee.app.model_survey import THREAD_NAME
from specee.app.options import ChatOptions, LoadOptions
from specee.app.tui.answer_entry import AnswerEntry
from specee.app.tui.app import ChatApp
from specee.app.tui.ascii_filter import AsciiFilter
from specee.app.tui.entries import Help, Notice
from specee.app.tui.prompt_input import PromptInput
from specee.predictors.decoding.stats import DecodingStats

TIMEOUT = 60.0  # seconds; machines may be slow
INFO = ModelInfo("smollm2-135m", "m.gguf", "llama", 30, 4096, 2, None, True)


def make_stats(**changes: Any) -> Stats:
    values: dict[str, Any] = {
        "prompt_tokens": 12,
        "reused": 0,
        "tokens": 3,
        "ttft_s": 0.1,
        "total_s": 0.2,
        "tokens_per_second": 81.5,
        "mean_exit_layer": 27.3,
        "n_layers": 30,
        "policy": "exact",
        "policy_reason": "exits reach 1.02x of dense here",
        "stop_reason": "stop",
        "seed": 1,
        "dense_rate": 79.9,
    }
    return Stats(**{**values, **changes})


class FakeSession(Session):
    """A real session whose engine answers `answer`, a token for each word, and waits before each when `gate` is set.

    The words from "think:" to "say:" are its thought.
    """

    def __init__(
        self,
        answer: str = "**Bold** words here",
        load_error: AppError | None = None,
        store: Store | None = None,
        load: LoadOptions | None = None,
    ) -> None:
        super().__init__(load or LoadOptions(), None, self._start, store)
        self.answer = answer
        self.load_error = load_error
        self.refused_load: AppError | None = None
        """The error of the next load only."""
        self.asked: list[Generate] = []
        self.loads: list[LoadOptions] = []
        self.cancelled = threading.Event()
        self.loaded = threading.Event()
        self.loaded.set()
        self.gate: threading.Semaphore | None = None
        self.closes = 0
        self.error: AppError | None = None
        self.stats = make_stats()
        self.drafts = False
        """Whether it answers with policy chain."""

    @property
    def sent(self) -> list[tuple[str, ChatOptions]]:
        return [(asked.messages[-1].content, asked.options) for asked in self.asked]

    def _start(self, load: LoadOptions) -> ScriptedLink:
        self.loads.append(load)
        return ScriptedLink(self)

    def close(self) -> None:
        self.closes += 1
        self.cancelled.set()
        self.loaded.set()
        super().close()


class ScriptedLink:
    """The engine of a FakeSession, as a thread."""

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.alive = True
        self.killed = threading.Event()
        self._inbox: queue.Queue[Any] = queue.Queue()

    def send(self, message: Any) -> None:
        if isinstance(message, Cancel):
            self.session.cancelled.set()
        else:
            threading.Thread(target=self._serve, args=(message,), daemon=True).start()

    def receive(self) -> Any:
        return self._inbox.get()

    def kill(self) -> None:
        self.killed.set()
        self.alive = False
        self._inbox.put(Failed("engine crashed", "signal 9 (SIGKILL)", fatal=True))

    def close(self) -> None:
        self.alive = False
        self._inbox.put(Failed("engine crashed", "it was closed", fatal=True))

    def _serve(self, message: Any) -> None:
        session, send = self.session, self._inbox.put
        if isinstance(message, Load):
            send(Progress("loading the model", 0.4))
            session.loaded.wait(10)
            error, session.refused_load = session.refused_load or session.load_error, None
            send(ModelLoaded(INFO) if error is None else _failed(error, fatal=True))
            return

        def put(answer: Any) -> None:
            fatal = isinstance(answer, Failed) and answer.fatal
            send(answer if fatal else OfRequest(message.request, answer))

        session.asked.append(message)
        session.cancelled.clear()
        if session.error is not None:
            error, session.error = session.error, None
            put(PromptProgress(0, 12))  # it is taken up: another engine is not asked
            put(_failed(error, fatal=error.exit_code == 1))
            return
        put(PromptProgress(12, 12))
        put(Started(session.stats.policy, session.stats.policy_reason, 12, 0, 1, 79.9))
        reason = session.stats.stop_reason
        last = message.messages[-1]
        there = {"thought": last.thought or "", "answer": last.content} if message.continue_answer else {}
        for index, (channel, text) in enumerate(_pieces(session.answer, there)):
            while session.gate is not None and not session.gate.acquire(timeout=0.01):
                if session.cancelled.is_set() or self.killed.is_set():
                    break
            if self.killed.is_set():
                return
            if session.cancelled.is_set():
                reason = "cancelled"
                break
            events = _drafted(index, text) if session.drafts else _events(index, text)
            put(TokenEvents(tuple(replace(event, channel=channel) for event in events)))
        put(Done(replace(session.stats, stop_reason=reason)))


def _failed(error: AppError, *, fatal: bool) -> Failed:
    return Failed.by(error, fatal=fatal)


def _pieces(answer: str, there: dict[str, str]) -> Iterator[tuple[Any, str]]:
    """Words with their channel; what stands between think: and say: is the thought. Without what is there already."""
    channel, lengths = "answer", {"thought": 0, "answer": 0}
    for word in answer.split(" "):
        if word in ("think:", "say:"):
            channel = "thought" if word == "think:" else "answer"
            continue
        text = " " + word if lengths[channel] else word
        lengths[channel] += len(text)
        if lengths[channel] > len(there.get(channel, "")):
            yield channel, text


def _events(index: int, text: str) -> Iterator[ChatEvent]:
    layer = 24 if index % 2 else 30
    t = 0.01 * index
    scores = ((20, 0.31), (24, 0.92))
    if layer < 30:
        yield ChatEvent(index, "?", 1, layer, "provisional", t)
        yield ChatEvent(index, "", 1, layer, "rolled_back", t)
        yield ChatEvent(
            index, text, 2, layer, "provisional", t, scores, (2, 5, 7, 9), candidate_texts=(" a", "b", "\n", "d")
        )
    yield ChatEvent(index, text, 2, layer, "verified", t, scores)


def _drafted(index: int, text: str) -> Iterator[ChatEvent]:
    """Steps of 1, 3 and 2 tokens in turn, all but the last of each drafted."""
    drafter = (None, "retrieval", "retrieval", None, "suffix", None)[index % 6]
    yield ChatEvent(index, text, 2, 30, "verified", 0.01 * index, drafter=drafter)


def use_drafts(session: FakeSession, n_tokens: int) -> None:
    """Lets it answer `n_tokens` tokens with policy chain."""
    session.drafts = True
    counted = {**asdict(DecodingStats()), "tokens": n_tokens, "steps": n_tokens // 2, "tested": n_tokens}
    counted |= {"accepted": n_tokens - 1 - n_tokens // 2, "dense_seconds": n_tokens / 58.0, "step_seconds": 1.0}
    session.stats = make_stats(
        tokens=n_tokens, policy="chain", policy_reason="drafting tokens", mean_exit_layer=30.0, policy_stats=counted
    )


def chat(session: FakeSession, ascii_filter: AsciiFilter | None = None) -> ChatApp:
    return ChatApp(session, ChatOptions(), ascii_filter=ascii_filter)


async def until(pilot: Pilot[Any], condition: Any) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, f"it did not happen; the screen shows:\n{screen(pilot.app)}"
        await pilot.pause(0.02)


async def survey_ended(pilot: Pilot[Any]) -> None:
    """The threads that look at models have told everything, and it is shown: nothing moves any more."""
    await until(pilot, lambda: not any(thread.name == THREAD_NAME for thread in threading.enumerate()))
    await pilot.pause()


async def submit(pilot: Pilot[Any], text: str) -> None:
    pilot.app.query_one(PromptInput).cursor_blink = False
    pilot.app.query_one(PromptInput).text = text
    await pilot.press("enter")


def screen(app: Any) -> str:
    """The screen as text."""
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


def answers(app: Any) -> list[str]:
    return [entry.text for entry in app.conversation.entries if isinstance(entry, AnswerEntry)]


def notices(app: Any) -> list[str]:
    return [entry.text for entry in app.conversation.entries if isinstance(entry, (Notice, Help))]


def idle(app: Any) -> bool:
    return not app.busy


@asynccontextmanager
async def in_mid_answer(session: FakeSession, n_tokens: int) -> AsyncIterator[Pilot[Any]]:
    """The screen while the question "Hi" is answered: the first `n_tokens` are there, the rest waits for the gate."""
    session.gate = threading.Semaphore(n_tokens)
    shown = " ".join(session.answer.split(" ")[:n_tokens])
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: answers(pilot.app) == [shown])
        yield pilot


async def ready(pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: idle(pilot.app))
