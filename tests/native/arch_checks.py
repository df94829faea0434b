"""Whether models do in our runtime what the proof at their opening says: a program, as a fault in llama.cpp ends it.

`PYTHONPATH=tests:tests/native python tests/native/arch_checks.py FILE...` prints each file's name, then a JSON line.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from answers import FREE, Oracle
from gguf import GGMLQuantizationType, quants
from helpers import append_all

from specee.native import abi, library
from specee.native.engine import Model, RowEngine, Sampler, advance_together
from specee.native.errors import NativeError
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding import driver
from specee.predictors.decoding.chain import Chain
from specee.predictors.decoding.state import begin_decoding
from specee.predictors.decoding.tree import Tree
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.suffix import SuffixGuesser
from specee.predictors.drafters.tree import TreeDrafter

N_CTX, N_PROMPT, N_ANSWER = 512, 244, 24  # the answer begins a new block of the KV cache, which has 256 positions
ERROR_RATE = 0.3  # of drafts
K, RANK = 4, 32


def prompt_of(seed: int) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(3, 90, N_PROMPT)]


def read(engine: RowEngine, prompt: list[int]) -> None:
    """All of it at once: rows of a large batch round differently from single ones."""
    engine.roll_back(0)
    engine.prefill(prompt)


class Dense:
    """The greedy answer of dense decoding, with the logits that each token was chosen from."""

    def __init__(self, engine: RowEngine, greedy: Sampler, prompt: list[int]) -> None:
        self.prompt = prompt
        self.tokens: list[int] = []
        self.logits: list[bytes] = []
        read(engine, prompt)
        for _ in range(N_ANSWER):
            self.logits.append(engine.logits(0).tobytes())
            self.tokens.append(engine.greedy(0, greedy))
            engine.forward(self.tokens[-1])

    def has(self, engine: RowEngine, i: int, row: int = 0) -> bool:
        """Whether a row of the engine's logits is what the answer's token i was chosen from."""
        return engine.logits(row).tobytes() == self.logits[i]


class Knowing(Oracle):
    """Knows the answer to a prompt of N_PROMPT tokens, with errors."""

    def begin(self, tokens: Any) -> None:
        self.at = len(tokens) - N_PROMPT


class Checks:
    """Of one model. Each check is a sentence that must be true."""

    def __init__(self, model: Model) -> None:
        self.model, self.greedy = model, Sampler(model)
        self.rng = np.random.default_rng(1)
        self.engine = RowEngine(model, n_ctx=N_CTX, n_threads=1)
        self.dense = Dense(self.engine, self.greedy, prompt_of(1))

    def all(self) -> Iterator[tuple[str, Callable[[], bool]]]:
        """With their sentences."""
        yield "a prompt that is read again gives the same bits", self.reads_again
        yield "two chats in turns have the bits of each alone", self.two_chats
        if self.engine.level == abi.DENSE:
            return
        yield "tokens after dropped ones have the bits of a fresh chat", self.goes_back
        yield "a draft chain's text is that of dense", self.chain
        yield "rows of two chats in one batch have the bits of each alone", self.two_chats_at_once
        if self.engine.level < abi.RANGES:
            return
        yield "layers in ranges give the bits of all at once", self.ranges
        yield "deferred layers of several rows give the bits of dense", self.deferred
        yield "a draft tree's text is that of dense", self.tree
        if self.engine.level < abi.EXITS:
            return
        yield "rows that exit and are completed have the bits of dense", self.exits

    def close(self) -> None:
        self.engine.close()
        self.greedy.close()

    def reads_again(self) -> bool:
        other = Dense(self.engine, self.greedy, prompt_of(2))
        same = Dense(self.engine, self.greedy, prompt_of(1))
        return same.logits == self.dense.logits and other.logits != same.logits

    def two_chats(self) -> bool:
        with closing(RowEngine(self.model, n_ctx=N_CTX, n_slots=2, n_threads=1)) as engine:
            if (engine.level, engine.limit) != (self.engine.level, self.engine.limit):
                raise NativeError("several chats", f"level {engine.level}, {engine.limit}")
            other = Dense(self.engine, self.greedy, prompt_of(2))
            for slot, chat in zip(engine.slots, (self.dense, other), strict=True):
                slot.prefill(chat.prompt)
            same = True
            for i in range(N_ANSWER - 1):
                for slot, chat in zip(engine.slots, (self.dense, other), strict=True):
                    slot.forward(chat.tokens[i])
                    same = same and chat.has(slot, i + 1)
            return same

    def two_chats_at_once(self) -> bool:
        other = Dense(self.engine, self.greedy, prompt_of(2))
        with closing(RowEngine(self.model, n_ctx=N_CTX, n_slots=2, n_threads=1)) as engine:
            chats = list(zip(engine.slots, (self.dense, other), strict=True))
            for slot, chat in chats:
                slot.prefill(chat.prompt)
            same, at = True, 0
            while at < N_ANSWER - 4:
                n = int(self.rng.integers(1, 4))
                batches = [(slot, append_all(slot, chat.tokens[at : at + n])) for slot, chat in chats]
                advance_together(batches, engine.n_layer, logits=True)
                for (slot, chat), (_, rows) in zip(chats, batches, strict=True):
                    same = same and all(chat.has(slot, at + i + 1, i) for i in range(n))
                    slot.commit(rows[-1])
                at += n
            return same

    def goes_back(self) -> bool:
        engine, dense = self.engine, self.dense
        read(engine, dense.prompt)
        for i in range(N_ANSWER - 1):
            if i % 6 == 3:
                for token in (9, 8, 7):
                    engine.forward(token)
                engine.roll_back(N_PROMPT + i)
            engine.forward(dense.tokens[i])
            if not dense.has(engine, i + 1):
                return False
        return True

    def answer(self, policy: Any) -> list[int]:
        engine = self.engine
        read(engine, self.dense.prompt)
        self.greedy.rewind(self.dense.prompt)
        state = begin_decoding(engine, self.dense.prompt, self.greedy, np.random.default_rng(0), N_ANSWER)
        for _ in driver.run(policy, engine, state):
            pass
        if len(state.tokens) > N_ANSWER // 2 and not state.stats.accepted:
            raise NativeError("no drafts", "none was accepted")
        return state.tokens

    def text(self) -> list[int]:
        """The answer, to its first stop token."""
        stops = [i for i, token in enumerate(self.dense.tokens) if self.engine.is_stop(token)]
        return self.dense.tokens[: stops[0] + 1] if stops else self.dense.tokens

    def chain(self) -> bool:
        guesser = Knowing(self.dense.tokens, ERROR_RATE, 1)
        policy = Chain(ChainDrafter([guesser], CostModel(FREE)), self.engine.max_equal_rows - 1)
        return self.answer(policy) == self.text()

    def tree(self) -> bool:
        guessers = [Knowing(self.dense.tokens, ERROR_RATE, 2), Knowing(self.dense.tokens, 0.6, 3, name="other")]
        drafter = TreeDrafter([*guessers, SuffixGuesser()], CostModel(FREE))
        return self.answer(Tree(drafter, self.engine.max_equal_rows - 1)) == self.text()

    def cuts(self) -> list[int]:
        n_layer = self.engine.n_layer
        n = min(int(self.rng.integers(1, 4)), n_layer - 1)
        return sorted(int(cut) for cut in self.rng.choice(np.arange(1, n_layer), n, replace=False))

    def ranges(self) -> bool:
        engine, dense = self.engine, self.dense
        read(engine, dense.prompt)
        for i in range(N_ANSWER - 1):
            row = engine.append(dense.tokens[i])
            for cut in self.cuts():
                engine.advance([row], cut)
            engine.advance([row], engine.n_layer, logits=True)
            engine.commit(row)
            if not dense.has(engine, i + 1):
                return False
        return True

    def deferred(self) -> bool:
        """Each row stops somewhere, none deeper than the one before it."""
        engine, dense = self.engine, self.dense
        read(engine, dense.prompt)
        at = 0
        while at + 4 < N_ANSWER:
            rows: list[int] = []
            depth = engine.n_layer - 1
            for token in dense.tokens[at : at + 4]:
                depth = int(self.rng.integers(1, depth + 1))
                rows.append(engine.append(token, rows[-1] if rows else -1))
                engine.advance(rows[-1:], depth)
            engine.complete(logits=True)
            if not all(dense.has(engine, at + i + 1, i) for i in range(4)):
                return False
            engine.commit(rows[-1])
            at += 4
        return True

    def exits(self) -> bool:
        engine, dense = self.engine, self.dense
        engine.roll_back(0)
        layers = list(range(1, engine.n_layer))
        for layer in layers:
            self._set_probe(layer)
        read(engine, dense.prompt)
        stopped: set[int] = set()
        at = 0
        while at + 3 < N_ANSWER:
            rows: list[int] = []
            for token in dense.tokens[at : at + 3]:
                rows.append(engine.append(token, rows[-1] if rows else -1))
                candidates = [int(t) for t in self.rng.choice(90, K, replace=False)]
                found = engine.run_to_exit(rows[-1], layers, K, candidates, float(self.rng.random()))
                stopped.add(found.stop_index)
            engine.complete(logits=True)
            last = engine.depth(rows[-1]) == engine.n_layer
            if not last or not any(dense.has(engine, at + 3, i) for i in range(3)):
                return False
            engine.commit(rows[-1])
            at += 3
        return len(stopped) > 1

    def _set_probe(self, layer: int) -> None:
        n = self.engine.n_embd

        def normal(*shape: int) -> Any:
            return (self.rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

        down, up = (quants.quantize(normal(*s), GGMLQuantizationType.Q8_0) for s in ((RANK, n), (n, RANK)))
        self.engine.set_lens(layer, down, up, normal(n))
        self.engine.set_predictor(layer, normal(8, 3 * K), normal(8), normal(8) * 4, 0.0)


def check(path: Path) -> dict[str, Any]:
    """The verdict on a model, its dense answer with a digest of each row of logits, and what is not true."""
    with closing(Model(path)) as model, closing(Checks(model)) as checks:
        wrong = []
        for sentence, holds in checks.all():
            try:
                if not holds():
                    wrong.append(f"not true: {sentence}")
            except NativeError as error:
                wrong.append(f"{sentence}: {error}")
        llama = model.llama
        return {
            "recurrent": bool(llama.llama_model_is_recurrent(model.handle)),
            "hybrid": bool(llama.llama_model_is_hybrid(model.handle)),
            "level": checks.engine.level,
            "limit": checks.engine.limit,
            "tokens": checks.dense.tokens,
            "digests": [hashlib.blake2b(logits, digest_size=8).hexdigest() for logits in checks.dense.logits],
            "wrong": wrong,
        }


def main() -> None:
    library.load()
    for path in map(Path, sys.argv[1:]):
        print(path, flush=True)
        try:
            found = check(path)
        except NativeError as error:
            found = {"refused": str(error)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
