"""The draft head of EAGLE-3 (Li et al., 2025) as llama.cpp computes it, in PyTorch.

One transformer layer over pairs: the state before a token and the embedding of the token. The state of a verified
token is fc of what three of the model's layers made of it; that of a drafted one is what the head itself made of the
pair before. Training unrolls the drafting ("training-time test", section 3.2), so that it learns to go on from its own
states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_DIM = 64
NORM_EPS = 1e-5
ROPE_BASE = 10000.0


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Sizes of a head; `vocabulary`: tokens that it can draft."""

    width: int
    vocabulary: int

    @property
    def n_head(self) -> int:
        return self.width // HEAD_DIM

    @property
    def n_head_kv(self) -> int:
        """A third to a sixth of the heads: their weights see twice the width."""
        return next(n for n in range(max(1, self.n_head // 3), 0, -1) if self.n_head % n == 0 and n <= 4)

    @property
    def feed_forward(self) -> int:
        """Narrow: a head must be cheap."""
        return max(1536, self.width)


class RmsNorm(nn.Module):
    """Root mean square norm with weights, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + NORM_EPS) * self.weight


class EagleHead(nn.Module):
    """The weights carry the names of llama.cpp's tensors, with _ for a dot."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        d, kv, ff = shape.width, shape.n_head_kv * HEAD_DIM, shape.feed_forward

        def linear(n_in: int, n_out: int, scale: float = 1.0) -> nn.Linear:
            made = nn.Linear(n_in, n_out, bias=False)
            nn.init.normal_(made.weight, std=scale * n_in**-0.5)
            return made

        self.enc_output_norm = RmsNorm(3 * d)
        self.fc = linear(3 * d, d)
        self.attn_norm, self.attn_norm_2 = RmsNorm(d), RmsNorm(d)
        self.attn_q, self.attn_k, self.attn_v = (linear(2 * d, n) for n in (shape.n_head * HEAD_DIM, kv, kv))
        self.attn_output = linear(shape.n_head * HEAD_DIM, d, 0.3)
        self.ffn_norm = RmsNorm(d)
        self.ffn_gate, self.ffn_up, self.ffn_down = linear(d, ff), linear(d, ff), linear(ff, d, 0.3)
        self.output_norm = RmsNorm(d)
        self.output = linear(d, shape.vocabulary)

    def unroll(self, features: Tensor, embeddings: list[Tensor]) -> Iterator[Tensor]:
        """What the LM head sees at each step of drafting: [batch, length, width].

        `features` [batch, length, 3 * width] are those of the verified tokens. `embeddings`, for each step: those of
        the tokens that stand 1, 2, .. after them, [batch, length, width]. Step i at place t drafts token t + i + 2 as
        if the tokens up to t had been verified, and those from t + 1 to t + i + 1 accepted.
        """
        batch, length, _ = features.shape
        state = self.fc(self.enc_output_norm(features)).float()
        place = torch.arange(length, device=features.device)
        hidden = torch.full((length, length), float("-inf"), device=features.device).triu(1)
        n_kv, n_groups = self.shape.n_head_kv, self.shape.n_head // self.shape.n_head_kv
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for step, embedding in enumerate(embeddings):
            pair = torch.cat([self.attn_norm(embedding), self.attn_norm_2(state)], -1)
            # [batch, kv heads, heads of each, length, dim]
            query = _rotate(self.attn_q(pair).view(batch, length, -1, HEAD_DIM), place + step)
            query = query.view(batch, length, n_kv, n_groups, HEAD_DIM).permute(0, 2, 3, 1, 4) * HEAD_DIM**-0.5
            key = _rotate(self.attn_k(pair).view(batch, length, n_kv, HEAD_DIM), place + step)
            keys.append(key.permute(0, 2, 1, 3)[:, :, None])  # [batch, kv heads, 1, length, dim]
            values.append(self.attn_v(pair).view(batch, length, n_kv, HEAD_DIM).permute(0, 2, 1, 3)[:, :, None])
            # the verified pairs up to this place, then the drafted ones: each place has its own
            scores = [(query @ keys[0].transpose(-1, -2)).float() + hidden]
            scores += [(query * drafted).sum(-1, keepdim=True).float() for drafted in keys[1:]]
            weights = torch.cat(scores, -1).softmax(-1)
            mixed = weights[..., :length].to(values[0].dtype) @ values[0]
            for i, drafted in enumerate(values[1:]):
                mixed = mixed + weights[..., length + i, None].to(drafted.dtype) * drafted
            mixed = mixed.permute(0, 3, 1, 2, 4).reshape(batch, length, -1)
            state = state + self.attn_output(mixed).float()
            inner = self.ffn_norm(state)
            state = state + self.ffn_down(functional.silu(self.ffn_gate(inner)) * self.ffn_up(inner)).float()
            yield self.output_norm(state)


def _rotate(x: Tensor, place: Tensor) -> Tensor:
    """Rotary embedding of neighbouring pairs: x [batch, length, heads, dim], place [length]."""
    exponent = torch.arange(0, HEAD_DIM, 2, device=x.device).float() / HEAD_DIM
    angle = place[:, None].float() * ROPE_BASE**-exponent  # [length, dim / 2]
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
    return turned.flatten(-2).to(x.dtype)
