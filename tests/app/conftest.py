"""A backend without a model: every byte is a token, the answer is a script."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from specee.app.engine.answering import Answerer
from specee.app.engine.measurements import Measurements
from specee.app.engine.protocol import (
    Cancel,
    Close,
    Failed,
    Generate,
    Load,
    Message,
    ModelInfo,
    ModelLoaded,
    OfRequest,
    Progress,
    PromptProgress,
)
from specee.app.engine.thinking import Thinking
from specee.app.errors import AppError
from specee.app.options import LoadOptions, PolicyChoice, Sampling
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.policy import WorkAndEvents, forward
from specee.predictors.decoding.state import ChosenToken, Decoding
from specee.predictors.types import TokenEvent, TokenState

STOP = 256
BOS = 1
N_LAYER = 30


class PrefillStoppedError(Exception):
    pass


class FakeSampler:
    is_greedy = True
    is_plain = True
    remembers = True

    def __init__(self, top_logprobs: int | None = None) -> None:
        self.accepted: list[int] = []
        self.top_logprobs = top_logprobs
        self.closed = False

    def accept(self, token: int) -> None:
        self.accepted.append(token)

    def rewind(self, prompt: Sequence[int], answer: Sequence[int] = ()) -> None:
        self.accepted = [*prompt, *answer]

    def allows(self, token: int) -> bool:
        return True

    def logprobs(self, token: int) -> tuple[tuple[int, float], ...]:
        return () if self.top_logprobs is None else ((token, -0.5), *((i, -1.0 - i) for i in range(self.top_logprobs)))

    def close(self) -> None:
        self.closed = True


class FakeEngine:
    """Generates `script`, byte by byte, after whatever prompt."""

    n_layer, n_embd, n_vocab = N_LAYER, 32, 257
    n_threads = active_threads = 2
    n_batch = 512

    def __init__(self, script: bytes, n_ctx: int = 512, n_slots: int = 1) -> None:
        self.script = [*script, STOP]
        self.n_ctx = n_ctx
        self.tokens: list[int] = []
        self.cancelled = threading.Event()
        self.slots = (self, *(FakeEngine(script, n_ctx) for _ in range(n_slots - 1)))
        for other in self.slots:
            other.cancelled = self.cancelled
        self.prefills: list[int] = []  # tokens computed by each prefill
        self.prompts: list[list[int]] = []
        self.before_chunk: Callable[[int], None] = lambda done: None
        self.in_flight: list[int] = []
        self.positions: list[int] = [0]  # after which the logits rows are

    @property
    def length(self) -> int:
        return len(self.tokens)

    def prefill(self, tokens: Sequence[int], on_chunk: Callable[[int, int], None] | None = None) -> int:
        keep = 0
        while keep < min(len(self.tokens), len(tokens) - 1) and self.tokens[keep] == tokens[keep]:
            keep += 1
        for done in range(keep, len(tokens), 16):
            self.before_chunk(done)
            if self.cancelled.is_set():
                raise PrefillStoppedError
            if on_chunk:
                on_chunk(min(done + 16, len(tokens)) - keep, len(tokens) - keep)
        self.tokens = list(tokens)
        self.positions = [len(tokens)]
        self.prompts.append(list(tokens))
        self.prefills.append(len(tokens) - keep)
        return keep

    tip = -1
    max_equal_rows = 8
    no_drafts: str | None = None

    @property
    def n_in_flight(self) -> int:
        return len(self.in_flight)

    def append(self, token: int, parent: int = -1) -> int:
        self.in_flight.append(token)
        return len(self.in_flight) - 1

    def advance(self, rows: Sequence[int], end: int, logits: bool = False) -> None:
        self.positions = [self.length + row + 1 for row in rows]

    def depth(self, row: int) -> int:
        return 0

    def commit(self, row: int, *, keep_rest: bool = False) -> None:
        self.tokens += self.in_flight[: row + 1]
        self.in_flight.clear()

    def forward(self, token: int) -> int:
        self.advance([self.append(token)], self.n_layer)
        self.commit(0)
        return 0

    def next_at(self, length: int) -> int:
        """The dense choice when `length` tokens are in the cache."""
        if STOP not in self.tokens:
            return self.script[0]  # no prompt was read yet
        last_message_end = len(self.tokens) - 1 - self.tokens[::-1].index(STOP)
        generated = length - (last_message_end + len("\0a:"))
        return self.script[min(generated, len(self.script) - 1)]

    def greedy(self, i: int, sampler: Any) -> int:
        return self.next_at(self.positions[i])

    def logits(self, i: int) -> Any:
        out = np.zeros(self.n_vocab, np.float32)
        out[self.greedy(i, None)] = 5.0
        return out

    def distribution(self, i: int, sampler: Any) -> Any:
        return np.array([self.greedy(i, sampler)], np.int32), np.ones(1, np.float32)

    def roll_back(self, length: int) -> None:
        self.in_flight.clear()
        del self.tokens[length:]

    def is_stop(self, token: int) -> bool:
        return token == STOP

    def letters(self, token: int) -> str:
        return ""

    def fix_threads(self, n: int) -> None: ...

    def limit_single_row(self, n: int) -> None:
        self.single = n

    def cancel(self) -> None:
        self.cancelled.set()

    def resume(self) -> None:
        self.cancelled.clear()

    def draft(self, row: int, token: int, k: int) -> Any:
        return np.zeros(k, np.int32)


class ScriptedPolicy:
    """Dense, except that every second token is first provisional, with an exit at layer 24; one is rolled back."""

    name = "exact"

    def __init__(self, delay: Callable[[int], None] = lambda index: None) -> None:
        self.resets = 0
        self.closed = 0
        self.delay = delay

    def reset(self) -> None:
        self.resets += 1

    def decode(self, state: Decoding) -> WorkAndEvents:
        try:
            while True:
                index = len(state.tokens)
                token = state.logits.greedy(0, state.sampler)
                layer = 24 if index % 2 else state.n_layer
                if layer < state.n_layer:
                    if index == 3:
                        yield TokenEvent(index, ord("?"), layer, TokenState.PROVISIONAL)
                        yield TokenEvent(index, ord("?"), layer, TokenState.ROLLED_BACK)
                    yield TokenEvent(index, token, layer, TokenState.PROVISIONAL, stop=state.is_stop(token))
                yield state.add(ChosenToken(token, layer))
                if state.is_last:
                    return
                self.delay(index)
                yield from forward(state)
        finally:
            self.closed += 1


class FakeBackend:
    """`bos`: the vocabulary wants BOS first; `template_bos`: the chat template writes it."""

    sha256 = "0" * 64
    control_tokens = ("\0",)
    notices: tuple[str, ...] = ()
    turn_stops: tuple[str, ...] = ()

    def __init__(
        self,
        script: bytes = b"Hello there.",
        n_ctx: int = 512,
        calibrated: bool = True,
        *,
        bos: bool = False,
        template_bos: bool = False,
        n_slots: int = 1,
    ) -> None:
        self.thinking = Thinking()
        self.bos_text = chr(BOS) if bos else ""
        self.template_bos = template_bos
        self.info = ModelInfo("fake", "fake.gguf", "llama", N_LAYER, n_ctx, 2, None, calibrated, n_slots=n_slots)
        self.engine = FakeEngine(script, n_ctx, n_slots)
        self.policies: dict[str, Any] = {}
        self.samplers: list[FakeSampler] = []
        self.grammars: list[str | None] = []
        self.chats = 0  # that were begun
        self.together: list[int] = []  # rows of each batch over several slots

    def format(
        self, messages: Sequence[Message], tools: str | None = None, variables: Mapping[str, Any] | None = None
    ) -> str:
        start = (self.bos_text if self.template_bos else "") + (tools or "")
        return start + "".join(f"{m.role[0]}:{m.content}\0" for m in messages) + "a:"

    def tokenize(self, text: str, *, bos: bool, special: bool = True, is_rest: bool = False) -> list[int]:
        first = [BOS] if bos and self.bos_text else []
        return [*first, *(STOP if byte == 0 and special else byte for byte in text.encode())]

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return (b"<stop>" if special else b"") if token == STOP else bytes([token])

    def sampler(self, sampling: Sampling, grammar: str | None = None, top_logprobs: int | None = None) -> FakeSampler:
        self.samplers.append(FakeSampler(top_logprobs))
        self.grammars.append(grammar)
        return self.samplers[-1]

    def begin_chat(self) -> None:
        self.chats += 1

    def exit_rule_names(self) -> tuple[str, ...]:
        return ("predictor", "margin") if self.info.calibrated else ()

    def advance_together(self, batches: Sequence[Any], end: int, logits: bool = False) -> None:
        self.together.append(sum(len(rows) for _, rows in batches))
        for engine, rows in batches:
            engine.advance(rows, end, logits)

    def policy(self, choice: PolicyChoice, cost: CostModel | None = None, *, history: bool = True) -> Any:
        from specee.predictors.decoding.build_policy import build_chain, make_chain_drafter
        from specee.predictors.decoding.dense import Dense

        if choice.name == "chain":
            assert cost is not None
            return build_chain(make_chain_drafter(cost, {}))
        if choice.name == "dense":
            return Dense()
        if not self.info.calibrated:
            raise AppError("No calibration", "run specee-chat calibrate")
        return self.policies.setdefault(choice.name, ScriptedPolicy())

    def close(self) -> None: ...


class FakeLink:
    """The engine process without a process: a thread."""

    def __init__(self, backend: FakeBackend) -> None:
        self.answerer = Answerer(backend, Measurements())
        self.backend = backend
        self.alive = True
        self.sent: list[Any] = []
        self._requests: queue.Queue[Any] = queue.Queue()
        self._inbox: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def send(self, message: Any) -> None:
        self.sent.append(message)
        if isinstance(message, Cancel):
            self.answerer.cancellation.cancel(message.request)
        elif isinstance(message, Generate) and message.messages[-1].content.startswith("crash"):
            self.alive = False
            if message.messages[-1].content == "crash":
                self._inbox.put(OfRequest(message.request, PromptProgress(0, 5)))
            self._inbox.put(Failed("engine crashed", "signal 9", fatal=True))
        else:
            self._requests.put(message)

    def receive(self) -> Any:
        return self._inbox.get()

    def kill(self) -> None:
        self.alive = False
        self._inbox.put(Failed("engine crashed", "signal 9", fatal=True))

    def close(self) -> None:
        self.alive = False
        self._requests.put(Close())

    def answer(self, asked: Generate) -> list[Any]:
        """The messages of an answer, in this thread."""
        sent: list[OfRequest] = []
        self.answerer.add(asked, sent.append)
        while self.answerer.busy:
            self.answerer.turn()
        assert all(message.request == asked.request for message in sent)
        return [message.message for message in sent]

    def _run(self) -> None:
        while True:
            try:
                message = self._requests.get(block=not self.answerer.busy)
            except queue.Empty:
                self.answerer.turn()
                continue
            if isinstance(message, Close):
                self._inbox.put(Failed("engine crashed", "it was closed", fatal=True))
                return
            if isinstance(message, Load):
                self._inbox.put(Progress("loading the model", 0.5))
                self._inbox.put(ModelLoaded(self.backend.info))
            else:
                self.answerer.add(message, self._inbox.put)


@pytest.fixture
def make_backend() -> Callable[..., FakeBackend]:
    return FakeBackend


@pytest.fixture
def make_session() -> Callable[..., Any]:
    """A session over a fake backend; every start of an engine is listed in its `links`."""
    from specee.app.chat.session import Session

    def make(backend: FakeBackend | None = None, system: str | None = None, store: Any = None) -> Any:
        links: list[FakeLink] = []

        def start(load: LoadOptions) -> FakeLink:
            links.append(FakeLink(backend or FakeBackend()))
            return links[-1]

        session: Any = Session(LoadOptions(), system, start, store)
        session.links = links
        return session

    return make


@pytest.fixture
def scripted() -> type[ScriptedPolicy]:
    return ScriptedPolicy


@pytest.fixture
def make_link() -> type[FakeLink]:
    return FakeLink
