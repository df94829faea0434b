"""The model in PyTorch, for a GPU that holds hundreds of conversations at once: its weights dequantized from the GGUF.

It serves recording alone. Its states differ from the runtime's by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from torch import Tensor
from torch.nn import functional

from specee.predictors.training.settings import HalfFloats, Slot
from specee.predictors.types import Floats

INTERLEAVED = {"llama"}
"""Rotary embedding turns neighbouring dimensions; in the others those half a head apart."""
ARCHITECTURES = INTERLEAVED | {"qwen2"}
N_BEST = 64  # tokens that are drawn from
PIECE = 2048  # tokens that are read at once
FREE_SHARE = 0.8  # of the GPU's memory that is free beside the weights
KEPT = torch.float16  # as the runtime keeps keys and values; bfloat16 is too coarse for keys with large biases
STEP = 64  # the cache's length that a step looks at is a multiple of it
_LAYER = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")


class UnknownArchitectureError(ValueError):
    """The model computes in a way that is not known here."""


def load(files: Sequence[Path], layers: Sequence[int], n_ctx: int, n_slots: int, device: str) -> TorchModel:
    """The model on a device; on a GPU with as many conversations as fit beside it, `n_slots` at most.

    `files`: all parts of a split model, else the one.
    Raises UnknownArchitectureError, torch.OutOfMemoryError.
    """
    made = TorchModel(files, layers, device, torch.bfloat16)
    if device != "cpu":
        n_slots = min(n_slots, int(FREE_SHARE * torch.cuda.mem_get_info(device)[0]) // made.slot_bytes(n_ctx))
    made.make_slots(max(1, n_slots), n_ctx)
    return made


def difference(some: HalfFloats, others: HalfFloats) -> float:
    """Of states [n, width], relative to their size: the median."""
    some, others = some.astype(np.float32), others.astype(np.float32)
    return float(np.median(np.linalg.norm(some - others, axis=1) / np.linalg.norm(some, axis=1)))


class TorchModel:
    """Weights on a device, and what it holds of each conversation."""

    def __init__(self, files: Sequence[Path], layers: Sequence[int], device: str, dtype: torch.dtype) -> None:
        readers = [gguf.GGUFReader(path) for path in files]
        fields = {key: field.contents() for key, field in readers[0].fields.items() if not key.startswith("tokenizer")}
        arch = str(fields["general.architecture"])
        if arch not in ARCHITECTURES or fields.get(f"{arch}.rope.scaling.type", "none") != "none":
            raise UnknownArchitectureError(arch)
        self.layers = tuple(layers)
        self.n_layer, self.n_embd = int(fields[f"{arch}.block_count"]), int(fields[f"{arch}.embedding_length"])
        self._n_head = int(fields[f"{arch}.attention.head_count"])
        self._n_kv = int(fields.get(f"{arch}.attention.head_count_kv", self._n_head))
        self._dim = int(fields.get(f"{arch}.attention.key_length", self.n_embd // self._n_head))
        self._eps = float(fields[f"{arch}.attention.layer_norm_rms_epsilon"])
        self._interleaved = arch in INTERLEAVED
        self._device, self._dtype = torch.device(device), dtype

        stored = {tensor.name: tensor for reader in readers for tensor in reader.tensors}
        if any(name.startswith("blk.") and name.split(".")[2] not in _LAYER for name in stored):
            raise UnknownArchitectureError(arch)

        def load(name: str) -> Tensor | None:
            if name not in stored:
                return None
            found = dequantize(stored[name].data, stored[name].tensor_type).astype(np.float32)
            return torch.from_numpy(found).to(self._device, dtype if found.ndim == 2 else torch.float32)

        def layer(i: int) -> dict[str, Tensor]:
            names = [f"{part}.{kind}" for part in _LAYER for kind in ("weight", "bias")]
            return {name: w for name in names if (w := load(f"blk.{i}.{name}")) is not None}

        with ThreadPoolExecutor() as threads:
            self._blocks = list(threads.map(layer, range(self.n_layer)))
        embeddings, norm, factors = load("token_embd.weight"), load("output_norm.weight"), load("rope_freqs.weight")
        assert embeddings is not None and norm is not None
        output = load("output.weight")
        self._embeddings, self._norm = embeddings, norm
        self._output = embeddings if output is None else output
        pairs = torch.arange(0, self._dim, 2, device=self._device).float() / self._dim
        self._frequencies = float(fields.get(f"{arch}.rope.freq_base", 10000.0)) ** -pairs
        if factors is not None:
            self._frequencies /= factors

        self.make_slots(0, 0)

    def make_slots(self, n_slots: int, n_ctx: int) -> None:
        """Windows of `n_ctx` tokens for so many conversations; earlier ones are gone."""
        self.n_slots, self.n_ctx = n_slots, n_ctx
        shape = (self.n_layer, n_slots, self._n_kv, n_ctx, self._dim)
        self._keys, self._values = (torch.zeros(shape, device=self._device, dtype=KEPT) for _ in range(2))
        states = (n_slots, n_ctx, len(self.layers) + 1, self.n_embd)
        self._states = torch.zeros(states, device=self._device, dtype=KEPT)
        self._best = np.zeros((n_slots, N_BEST), np.int64)
        self._logits: Floats = np.zeros((n_slots, N_BEST), np.float32)
        self.slots = [TorchSlot(self, i) for i in range(n_slots)]

    def slot_bytes(self, n_ctx: int) -> int:
        """Memory for a conversation: keys, values, states of four layers, logits."""
        per_token = 2 * self.n_layer * self._n_kv * self._dim + (len(self.layers) + 1) * self.n_embd
        return 2 * n_ctx * per_token + 8 * len(self._output)

    def read(self, batches: Sequence[tuple[Slot, list[int]]]) -> None:
        """Gives each of some slots one or more tokens."""
        with torch.inference_mode():
            self._read(batches)

    def _read(self, batches: Sequence[tuple[Slot, list[int]]]) -> None:
        given = [(slot, tokens) for slot, tokens in batches if isinstance(slot, TorchSlot)]
        begun = sorted((each for each in given if len(each[1]) > 1), key=lambda each: len(each[1]))
        while begun:  # the longest ones first, those of similar lengths together
            longest = len(begun[-1][1]) - 1
            n = max(1, PIECE // longest)
            part, begun = begun[-n:], begun[:-n]
            padded = torch.zeros((len(part), longest), dtype=torch.long)
            for i, (_, tokens) in enumerate(part):
                padded[i, : len(tokens) - 1] = torch.tensor(tokens[:-1])
            self._forward([slot for slot, _ in part], padded)
            for slot, tokens in part:
                slot.tokens += tokens[:-1]
        # all slots together, so that nothing is gathered: what stands for the others is overwritten later
        last = torch.zeros((self.n_slots, 1), dtype=torch.long)
        places = [slot.number for slot, _ in given]
        last[places, 0] = torch.tensor([tokens[-1] for _, tokens in given])
        state = self._forward(self.slots, last)[:, -1]
        logits, best = (self._normed(state, self._norm) @ self._output.T).float().topk(N_BEST)
        self._best[places], self._logits[places] = best.cpu().numpy()[places], logits.cpu().numpy()[places]
        for slot, tokens in given:
            slot.tokens.append(tokens[-1])

    def _forward(self, slots: list[TorchSlot], tokens: Tensor) -> Tensor:
        """tokens [slots, n], the shorter ones padded at their ends -> final states [slots, n, n_embd]. What stands
        for padding is overwritten before anything looks at it."""
        n_slots, n = tokens.shape
        device = self._device
        everyone = slots is self.slots
        number = torch.tensor([slot.number for slot in slots], device=device)
        begin = torch.tensor([len(slot.tokens) for slot in slots], device=device)
        place = (begin[:, None] + torch.arange(n, device=device)).clamp_max(self.n_ctx - 1)  # [slots, n]
        length = min(self.n_ctx, -(-(max(len(slot.tokens) for slot in slots) + n) // STEP) * STEP)
        hidden = torch.arange(length, device=device) > place[:, :, None]  # [slots, n, length]
        mask = torch.zeros(hidden.shape, device=device, dtype=KEPT).masked_fill_(hidden, float("-inf"))
        groups = self._n_head // self._n_kv
        mask = mask[:, None, None].expand(-1, 1, groups, -1, -1).reshape(n_slots, 1, groups * n, length)
        angle = place[..., None].float() * self._frequencies  # [slots, n, dim / 2]
        cos, sin = angle.cos()[:, :, None], angle.sin()[:, :, None]
        state = self._embeddings[tokens.to(device)].float()
        for i, w in enumerate(self._blocks):
            if i in self.layers:
                self._states[number[:, None], place, self.layers.index(i)] = state.to(KEPT)
            normed = self._normed(state, w["attn_norm.weight"])
            query, key, value = (
                functional.linear(normed, w[f"{name}.weight"]) for name in ("attn_q", "attn_k", "attn_v")
            )
            if "attn_q.bias" in w:
                query, key, value = query + w["attn_q.bias"], key + w["attn_k.bias"], value + w["attn_v.bias"]
            query = query.view(n_slots, n, self._n_head, self._dim).float()
            key = key.view(n_slots, n, self._n_kv, self._dim).float()
            query, key = self._rotated(query, cos, sin), self._rotated(key, cos, sin)
            keys, values = self._keys[i], self._values[i]
            keys[number[:, None], :, place] = key.to(KEPT)
            values[number[:, None], :, place] = value.view(n_slots, n, self._n_kv, self._dim).to(KEPT)
            seen_keys, seen_values = (
                kept[:, :, :length] if everyone else kept[number, :, :length] for kept in (keys, values)
            )
            # the heads that share keys are queries of one head
            query = query.to(KEPT).view(n_slots, n, self._n_kv, groups, self._dim).permute(0, 2, 3, 1, 4)
            query = query.reshape(n_slots, self._n_kv, groups * n, self._dim)
            mixed = functional.scaled_dot_product_attention(query, seen_keys, seen_values, attn_mask=mask)
            mixed = mixed.view(n_slots, self._n_kv, groups, n, self._dim)
            mixed = mixed.permute(0, 3, 1, 2, 4).reshape(n_slots, n, -1).to(self._dtype)
            state = state + functional.linear(mixed, w["attn_output.weight"]).float()
            normed = self._normed(state, w["ffn_norm.weight"])
            gate, up = functional.linear(normed, w["ffn_gate.weight"]), functional.linear(normed, w["ffn_up.weight"])
            state = state + functional.linear(functional.silu(gate) * up, w["ffn_down.weight"]).float()
        final = state * torch.rsqrt(state.pow(2).mean(-1, keepdim=True) + 1e-12)
        self._states[number[:, None], place, len(self.layers)] = final.to(KEPT)
        return state

    def _normed(self, state: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(state, (self.n_embd,), weight, self._eps).to(self._dtype)

    def _rotated(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [slots, n, heads, dim]"""
        if self._interleaved:
            one, other = x[..., 0::2], x[..., 1::2]
            return torch.stack([one * cos - other * sin, one * sin + other * cos], -1).flatten(-2)
        one, other = x.chunk(2, -1)
        return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)


class TorchSlot:
    """One of the model's conversations."""

    def __init__(self, model: TorchModel, number: int) -> None:
        self._model, self.number, self.n_ctx = model, number, model.n_ctx
        self.tokens: list[int] = []

    def roll_back(self, length: int) -> None:
        del self.tokens[length:]

    def best(self) -> int:
        return int(self._model._best[self.number, 0])

    def draw(self, temperature: float, top_p: float, chance: float) -> int:
        logits = self._model._logits[self.number]
        probs = np.exp(logits - logits[0])
        before = np.cumsum(probs) - probs
        logits = logits[before < top_p * float(probs.sum())]
        total = np.cumsum(np.exp((logits - logits[0]) / temperature))
        at = int(np.searchsorted(total, chance * float(total[-1])))
        return int(self._model._best[self.number, min(at, len(total) - 1)])

    def states(self, begin: int, end: int) -> HalfFloats:
        found: Any = self._model._states[self.number, begin:end, :-1].flatten(1).cpu().numpy().copy()
        return found  # type: ignore[no-any-return]

    def final(self, begin: int, end: int) -> HalfFloats:
        found: Any = self._model._states[self.number, begin:end, -1].cpu().numpy().copy()
        return found  # type: ignore[no-any-return]
