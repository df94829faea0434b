"""Reads a prompt into a slot, in chunks.

Text must not depend on how a prompt came into the cache: in which chunks, and what of it was there already. Rows of
large batches are computed in groups, the rest of them and small batches by other kernels, which round differently. So
chunks begin at a multiple of a group, none is small, and a prompt's last tokens are always computed. Where a chat goes
on from an answer, the cache is its own state, and all of it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from specee.app.engine.backend import ChatEngine
from specee.app.engine.slot import common_prefix
from specee.native.errors import NativeError

GROUP = 4
"""Rows that matrix kernels take at once."""
MIN_CHUNK = 12


class Prefill:
    """The prompt `tokens` on its way into the engine, whose cache begins with `n_read` tokens of the last prompt.

    `given`: the first tokens of the answer. They are read behind it, a few at once: so they get the bits that they had
    when they were generated.
    """

    def __init__(self, engine: ChatEngine, tokens: Sequence[int], n_read: int, given: Sequence[int] = ()) -> None:
        self._engine, self._tokens, self._n_prompt = engine, [*tokens, *given], len(tokens)
        self.total = len(self._tokens)
        keep = common_prefix(engine.tokens, self._tokens[:-1])
        if keep <= n_read:
            keep = max(0, min(keep, self._n_prompt - MIN_CHUNK)) // GROUP * GROUP
        try:
            engine.roll_back(keep)
        except NativeError:  # a memory that cannot go back: all of it is read again
            keep = 0
            engine.roll_back(keep)
        self.done = keep
        self.reused = 0
        """Tokens that were in the cache already, once the first chunk is read."""
        self._begun = False

    @property
    def is_complete(self) -> bool:
        """Whether the prompt is read: the engine's logits are those of its last token."""
        return self._begun and self.done == self.total

    def read_chunk(self, size: int) -> None:
        """The next tokens, at most about `size`."""
        if self.done < self._n_prompt:
            end = chunk_end(self.done, self._n_prompt, size)
        else:
            end = min(self.done + self._engine.max_equal_rows, self.total)
        reused = self._engine.prefill(self._tokens[:end])
        if not self._begun:
            self.reused, self._begun = reused, True
        self.done = end


def chunk_end(begin: int, total: int, size: int) -> int:
    """Where a chunk of at most `size` tokens ends, so that the next one is not small."""
    left = total - begin
    if left <= size:
        return total
    length = min(size, left - MIN_CHUNK) // GROUP * GROUP
    return begin + max(length, GROUP)
