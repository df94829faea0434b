"""Training of a draft head on recorded conversations, in PyTorch; an interrupted training goes on where it was."""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specee.predictors.exits.lm_head import LMHead
from specee.predictors.training.conversations import Conversation, ConversationLog, Conversations
from specee.predictors.training.head import EagleHead, HeadShape
from specee.predictors.training.settings import N_STEPS, ProgressCallback, Settings, Weights
from specee.predictors.types import Floats, Tokens

HARD = 0.5  # share of the loss that goes to the model's best token; the rest to its whole distribution
STEP_WEIGHT = 0.8  # of each step of drafting, over the one before
RATE, RATE_WIDTH, RATE_TOKENS = 1e-3, 576, 768  # learning rate at this width, with batches of so many tokens
LAST_RATE = 0.04  # its share at the end
WARM_UP, CLIP, DECAY = 80, 1.0, 0.01
SAVE_SECONDS = 120.0
CURVE_POINTS = 4
SORTED = 256  # conversations that are sorted by length before they are put into batches


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Of the first draft, of the second after a right first one, and so on."""

    rates: tuple[float, ...]

    @property
    def tokens_per_step(self) -> float:
        """Tokens of a step that drafts N_STEPS tokens, each time."""
        return 1.0 + sum(math.prod(self.rates[: i + 1]) for i in range(len(self.rates)))


_At = tuple[int, int, float, list[tuple[int, Acceptance]]]
"""Where a training is: tokens seen, steps, seconds, and the learning curve so far."""


class HeadTraining:
    """A head, and the data that it learns from."""

    def __init__(
        self, weights: Weights, logs: Sequence[ConversationLog], settings: Settings, device: str = "cpu"
    ) -> None:
        n_vocab = weights.n_vocab
        self._device = torch.device(device)
        self._data, self._settings = _Data(Conversations(logs), self._device), settings
        self.layers = weights.layers
        counts = np.zeros(n_vocab, np.int64)
        for log in logs:
            for answer in log.answers():
                np.add.at(counts, answer, 1)
        n_known = min(settings.vocabulary, n_vocab)
        order = np.lexsort((np.arange(n_vocab), -counts))  # of equal ones low ids: they are frequent merges
        self.known: Tokens = np.sort(order[:n_known]).astype(np.int32)
        self.coverage = float(counts[self.known].sum() / max(1, counts.sum()))
        row_of = torch.full((n_vocab,), -1)
        row_of[torch.from_numpy(self.known).long()] = torch.arange(n_known)
        self._row_of = row_of.to(self._device)
        self._half = self._device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
        self._embedded = _Embeddings(weights, self._device)
        head = LMHead.of(weights, self.known)
        lm_head = torch.from_numpy(head.rows)
        self._lm_head = lm_head.to(self._device, torch.bfloat16 if self._half else torch.float32)
        self._constants, self._cap = torch.from_numpy(head.constants).to(self._device), head.cap
        torch.manual_seed(settings.seed)
        self.head = EagleHead(HeadShape(weights.n_embd, n_known)).to(self._device)
        with torch.no_grad():
            self.head.output.weight.copy_(lm_head * (head.cap or 1.0))
            self.head.enc_output_norm.weight.copy_(self._feature_scale())

    def _feature_scale(self) -> Tensor:
        """Makes all dimensions of the features vary alike: some of a model's are hundreds of times the others."""
        some = torch.cat([self._data.read(i).states[1:] for i in range(min(len(self._data), 200))]).float()
        some = some[torch.isfinite(some).all(1)]  # others are damaged
        some *= torch.rsqrt(some.pow(2).mean(1, keepdim=True))
        return 1.0 / (some.std(0) + 1e-3)

    # ---- training

    def run(self, folder: Path, held_out: ConversationLog, progress: ProgressCallback) -> list[tuple[int, Acceptance]]:
        """Trains to the end of the passes or of the time. The state is saved in `folder` again and again.

        Returns the learning curve: what the head was worth on `held_out` after so many tokens.
        """
        settings, head = self._settings, self.head
        decayed = [p for p in head.parameters() if p.ndim > 1]
        plain = [p for p in head.parameters() if p.ndim < 2]
        rate = RATE * min(1.0, (RATE_WIDTH / head.shape.width) ** 0.5) * (settings.batch_tokens / RATE_TOKENS) ** 0.5
        groups = [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)
        wanted = settings.passes * self._data.n_tokens
        file = folder / "training.pt"
        for left in folder.glob("training.[0-9]*"):  # by a run that was killed
            left.unlink(missing_ok=True)
        seen, step, spent, curve = self._load(file, optimizer)
        began = saved = time.monotonic()
        batches = self._batches(step)
        while (share := max(seen / wanted, (spent + time.monotonic() - began) / settings.train_seconds)) < 1.0:
            progress("training the head", share)
            if share >= (len(curve) + 1) / CURVE_POINTS:
                curve.append((seen, self.acceptance(held_out)))
            for group in optimizer.param_groups:
                cosine = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * share))
                group["lr"] = rate * min(1.0, (step + 1) / WARM_UP) * cosine
            chosen = next(batches)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
                loss = self._loss([self._data.read(i) for i in chosen])
            if not torch.isfinite(loss):  # of damaged recordings
                seen += sum(self._data.length(i) for i in chosen)
                continue
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seen += sum(self._data.length(i) for i in chosen)
            step += 1
            if time.monotonic() - saved > SAVE_SECONDS:
                saved = time.monotonic()
                self._save(file, optimizer, (seen, step, spent + saved - began, curve))
        if len(curve) < CURVE_POINTS:
            curve.append((seen, self.acceptance(held_out)))
            self._save(file, optimizer, (seen, step, spent + time.monotonic() - began, curve))
        return curve

    def _save(self, file: Path, optimizer: torch.optim.Optimizer, at: _At) -> None:
        part = file.with_suffix(f".{os.getpid()}")
        with suppress(OSError, RuntimeError):  # a full disk, say: only another run could not go on from here
            state = {
                "head": self.head.state_dict(),
                "optimizer": optimizer.state_dict(),
                "known": torch.from_numpy(self.known),
                "at": (*at[:3], [(seen, list(found.rates)) for seen, found in at[3]]),
            }
            torch.save(state, part)
            part.replace(file)
        with suppress(OSError):
            part.unlink(missing_ok=True)

    def _load(self, file: Path, optimizer: torch.optim.Optimizer) -> _At:
        """Where an earlier run was. With other data it is a new one, from that head on."""
        if not file.is_file():  # opening it might wait without end
            return 0, 0, 0.0, []
        try:
            state: Any = torch.load(file, map_location=self._device, weights_only=True)
            known = state["known"].cpu().numpy()
            if not all(bool(torch.isfinite(w).all()) for w in state["head"].values()):
                return 0, 0, 0.0, []
            if not np.array_equal(known, self.known):
                self._begin_with(state["head"], known)
                return 0, 0, 0.0, []
            self.head.load_state_dict(state["head"])
            optimizer.load_state_dict(state["optimizer"])
            seen, step, spent, curve = state["at"]
            return seen, step, spent, [(n, Acceptance(tuple(rates))) for n, rates in curve]
        except (OSError, RuntimeError, LookupError, TypeError, ValueError, EOFError, pickle.UnpicklingError):
            return 0, 0, 0.0, []

    def _begin_with(self, earlier: dict[str, Tensor], known: Tokens) -> None:
        """A head whose drafts were other tokens: of its LM head the rows of common ones."""
        rows = {int(token): i for i, token in enumerate(known)}
        common = [(i, rows[int(token)]) for i, token in enumerate(self.known) if int(token) in rows]
        output = self.head.output.weight.detach().clone()
        here, there = (torch.tensor(column) for column in zip(*common, strict=True))
        output[here] = earlier["output.weight"][there]
        self.head.load_state_dict({**earlier, "output.weight": output})

    def _batches(self, first: int) -> Iterator[list[int]]:
        """Conversations of similar lengths, about `batch_tokens` with their padding; for ever, from number `first`."""
        rng = np.random.default_rng(self._settings.seed)
        number = 0
        while True:
            order = rng.permutation(len(self._data)).tolist()
            for at in range(0, len(order), SORTED):
                batches: list[list[int]] = [[]]
                for i in sorted(order[at : at + SORTED], key=self._data.length):
                    if batches[-1] and self._data.length(i) * (len(batches[-1]) + 1) > self._settings.batch_tokens:
                        batches.append([])
                    batches[-1].append(i)
                for i in rng.permutation(len(batches)).tolist():
                    if number >= first:
                        yield batches[i]
                    number += 1

    def _loss(self, conversations: Sequence[_Recorded]) -> Tensor:
        """Cross entropy with the model's own choice at each step of the draft."""
        batch = self._padded(conversations)
        with torch.no_grad():
            final = torch.cat([c.final.to(self._lm_head.dtype) for c in conversations])
            rows = self._row_of[torch.cat([c.best for c in conversations])]
            logits = (final @ self._lm_head.T).float() + self._constants
            logits = self._cap * torch.tanh(logits) if self._cap else logits
            target = logits.softmax(-1) * (1.0 - HARD)
            target[torch.arange(len(rows), device=self._device), rows.clamp_min(0)] += HARD
        total = torch.zeros((), device=self._device)
        for step, seen in enumerate(self.head.unroll(batch.features, batch.embeddings)):
            # place t drafts token t + step + 2, which the model chose at place t + step + 1
            chosen = batch.choice[:, step + 1 :]
            learned = (chosen >= 0) & (rows[chosen.clamp_min(0)] >= 0)
            logits = self.head.output(seen[:, : -step - 1][learned])
            if not len(logits):
                continue
            loss: Any = _SoftCrossEntropy.apply(logits, target[chosen[learned]])
            total = total + STEP_WEIGHT**step * loss
        return total

    def _padded(self, conversations: Sequence[_Recorded]) -> _Batch:
        n, length = len(conversations), max(len(c.tokens) for c in conversations)
        features = torch.zeros((n, length, 3 * self.head.shape.width), device=self._device)
        tokens = torch.zeros((n, length + N_STEPS), dtype=torch.long, device=self._device)
        choice = torch.full((n, length), -1, device=self._device)
        at = 0
        for i, c in enumerate(conversations):
            n_tokens, n_answer = len(c.tokens), len(c.best)
            features[i, :n_tokens] = c.states
            tokens[i, :n_tokens] = c.tokens
            choice[i, n_tokens - n_answer - 1 : n_tokens - 1] = torch.arange(at, at + n_answer, device=self._device)
            at += n_answer
        vectors = self._embedded(tokens)
        embeddings = [vectors[:, i : i + length] for i in range(1, N_STEPS + 1)]
        return _Batch(features, embeddings, choice, tokens)

    # ---- what it is worth

    def weights(self) -> dict[str, Floats]:
        """Copies, float32, by llama.cpp's names."""
        named = self.head.named_parameters()
        return {name.removesuffix(".weight"): w.detach().cpu().numpy().copy() for name, w in named}

    def with_weights(self, weights: dict[str, Floats]) -> HeadTraining:
        """The same with other weights, as a file will have them."""
        self.head.load_state_dict({f"{name}.weight": torch.from_numpy(w) for name, w in weights.items()})
        return self

    def acceptance(self, held_out: ConversationLog) -> Acceptance:
        """On greedy answers, at each place as if a step had ended there."""
        right, tried = [0] * N_STEPS, [0] * N_STEPS
        known = torch.from_numpy(self.known).long().to(self._device)
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            for i in range(len(held_out)):
                conversation = held_out.read(i)
                c = _recorded(conversation, self._device)
                batch = self._padded([c])
                alive = torch.ones(len(c.tokens), dtype=torch.bool, device=self._device)
                for step, seen in enumerate(self.head.unroll(batch.features, batch.embeddings)):
                    # the first place of the answer's first token on, as far as there are tokens to compare with
                    places = slice(conversation.begin - 1, len(c.tokens) - step - 2)
                    drafted = known[self.head.output(seen[0, places]).argmax(-1)]
                    hit = drafted == batch.tokens[0, places.start + step + 2 : places.stop + step + 2]
                    before = alive[places]
                    tried[step] += int(before.sum())
                    right[step] += int((hit & before).sum())
                    alive[places] = hit & before
        return Acceptance(tuple(r / max(1, t) for r, t in zip(right, tried, strict=True)))


@dataclass(frozen=True, slots=True)
class _Batch:
    features: Tensor  # [n, length, 3 * width]
    embeddings: list[Tensor]  # [n, length, width] of the tokens 1, 2, .. later
    choice: Tensor  # [n, length]: which choice of the model was made at this place, -1 for none
    tokens: Tensor  # [n, length + N_STEPS]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A conversation as training takes it."""

    tokens: Tensor  # [n]
    best: Tensor  # [n of the answer]
    states: Tensor  # float16 [n, 3 * width]
    final: Tensor  # float16 [n of the answer, width]


def _recorded(c: Conversation, device: torch.device) -> _Recorded:
    numbers = (torch.tensor(c.tokens), torch.tensor(c.best))
    states = (torch.from_numpy(np.array(values)) for values in (c.states, c.final))  # from the disk
    return _Recorded(*(each.to(device) for each in (*numbers, *states)))


def _free_memory(gpu: torch.device) -> int:
    """Bytes, with what PyTorch keeps for later."""
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(gpu)[0])


class _Data:
    """The recorded conversations; a GPU holds all of them where they take at most half of its free memory."""

    def __init__(self, conversations: Conversations, device: torch.device) -> None:
        self._conversations, self._device = conversations, device
        self.n_tokens = conversations.n_tokens
        fits = device.type == "cuda" and 2 * conversations.n_bytes < _free_memory(device)
        self._held = [_recorded(conversations.read(i), device) for i in range(len(conversations))] if fits else None

    def __len__(self) -> int:
        return len(self._conversations)

    def length(self, i: int) -> int:
        """Tokens of a conversation."""
        return self._conversations.length(i)

    def read(self, i: int) -> _Recorded:
        return self._held[i] if self._held is not None else _recorded(self._conversations.read(i), self._device)


class _Embeddings:
    """The model's token embeddings, fetched once for each token that occurs."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self._weights = weights
        self._place = torch.full((weights.n_vocab,), -1, device=device)
        self._rows = torch.zeros((0, weights.n_embd), dtype=torch.float16, device=device)

    def __call__(self, tokens: Tensor) -> Tensor:
        """tokens [..] -> float32 [.., n_embd]."""
        new = tokens[self._place[tokens] < 0].unique()
        if len(new):
            self._place[new] = torch.arange(len(self._rows), len(self._rows) + len(new), device=new.device)
            found = torch.from_numpy(self._weights.embedding_rows(new.cpu().numpy().astype(np.int32)))
            rows = self._rows.new_empty((len(self._rows) + len(new), found.shape[1]))
            rows[: len(self._rows)], rows[len(self._rows) :] = self._rows, found
            self._rows = rows
        return self._rows[self._place[tokens]].float()


class _SoftCrossEntropy(torch.autograd.Function):
    """Mean of -sum(target * log softmax(logits)): the gradient is made in place of the logits, which are large."""

    @staticmethod
    def forward(context: Any, logits: Tensor, target: Tensor) -> Tensor:
        log_probs = logits.float().log_softmax(-1)
        loss = -(target * log_probs).sum(-1).mean()
        context.save_for_backward(log_probs.exp_().sub_(target).div_(len(target)).to(logits.dtype))
        return loss

    @staticmethod
    def backward(context: Any, *above: Tensor) -> tuple[Tensor, None]:
        (gradient,) = context.saved_tensors
        return gradient * above[0].to(gradient.dtype), None
