"""Recorded conversations on disk: appended only, so that an interrupted recording loses one at most."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specee.predictors.training.settings import HalfFloats


@dataclass(frozen=True, slots=True)
class Conversation:
    """A question and its answer, without what stands before the question in every chat.

    `tokens` [n]; the answer begins at `begin`. `states` [n, 3 * n_embd]: what the layers that the head reads made of
    each token. `final` [n - begin, n_embd]: the state from which the model chose each token of the answer. `best`
    [n - begin]: its most probable token there.
    """

    tokens: list[int]
    begin: int
    best: list[int]
    states: HalfFloats
    final: HalfFloats

    @property
    def n_answer(self) -> int:
        return len(self.tokens) - self.begin


class ConversationLog:
    """A folder: one line of JSON for each conversation, and the states of all in two files of float16.

    Raises OSError where the disk does.
    """

    def __init__(self, folder: Path, n_embd: int) -> None:
        self.n_embd = n_embd
        self._lines, self._states, self._final = (folder / name for name in ("tokens.jsonl", "states.f16", "final.f16"))
        self._found: list[tuple[list[int], int, list[int]]] = []
        self._starts: list[tuple[int, int]] = []  # of each conversation in the two files, in rows
        self.n_tokens = self.n_answer_tokens = 0
        folder.mkdir(parents=True, exist_ok=True)
        for path in (self._lines, self._states, self._final):
            if path.is_symlink() or (path.exists() and not path.is_file()):  # opening it might wait, or change another
                raise OSError(errno.EINVAL, "it is no regular file", str(path))
        self._take_up()

    def __len__(self) -> int:
        return len(self._found)

    @property
    def n_bytes(self) -> int:
        """Of the states."""
        return (3 * self.n_tokens + self.n_answer_tokens) * self.n_embd * 2

    def _take_up(self) -> None:
        """What an earlier run completed; the rest is cut off."""
        sizes = [path.stat().st_size if path.exists() else 0 for path in (self._states, self._final)]
        kept = b""
        with suppress(FileNotFoundError):
            for line in self._lines.read_bytes().splitlines(keepends=True):
                try:
                    tokens, begin, best = _numbers(json.loads(line))
                except (ValueError, KeyError, TypeError, RecursionError):
                    break
                self._add(tokens, begin, best)
                if 6 * self.n_tokens * self.n_embd > sizes[0] or 2 * self.n_answer_tokens * self.n_embd > sizes[1]:
                    self._remove_last()
                    break
                kept += line
        self._lines.write_bytes(kept)
        for path, rows in ((self._states, 3 * self.n_tokens), (self._final, self.n_answer_tokens)):
            with path.open("ab") as file:
                file.truncate(2 * rows * self.n_embd)

    def _add(self, tokens: list[int], begin: int, best: list[int]) -> None:
        self._found.append((tokens, begin, best))
        self._starts.append((self.n_tokens, self.n_answer_tokens))
        self.n_tokens += len(tokens)
        self.n_answer_tokens += len(tokens) - begin

    def _remove_last(self) -> None:
        self._found.pop()
        self.n_tokens, self.n_answer_tokens = self._starts.pop()

    def append(self, conversation: Conversation) -> None:
        """States first: a line stands for a whole conversation."""
        for path, values in ((self._states, conversation.states), (self._final, conversation.final)):
            with path.open("ab") as file:
                file.write(np.ascontiguousarray(values, np.float16).tobytes())
        line = {"tokens": conversation.tokens, "begin": conversation.begin, "best": conversation.best}
        with self._lines.open("a") as lines:
            lines.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._add(conversation.tokens, conversation.begin, conversation.best)

    def length(self, i: int) -> int:
        """Tokens of a conversation."""
        return len(self._found[i][0])

    def delete(self) -> None:
        """All of it, from the disk too."""
        for path in (self._lines, self._states, self._final):
            path.unlink(missing_ok=True)
        self._found.clear()
        self._starts.clear()
        self.n_tokens = self.n_answer_tokens = 0

    def answers(self) -> Iterator[list[int]]:
        """The tokens of all answers."""
        return (tokens[begin:] for tokens, begin, _ in self._found)

    def questions(self) -> Iterator[list[int]]:
        """The tokens of all questions, with what leads over to the answer."""
        return (tokens[:begin] for tokens, begin, _ in self._found)

    def read(self, i: int) -> Conversation:
        """A conversation, its states mapped from the disk."""
        tokens, begin, best = self._found[i]
        at, at_final = self._starts[i]
        n, width = len(tokens), self.n_embd
        states = np.memmap(self._states, np.float16, "r", 6 * at * width, (n, 3 * width))
        final = np.memmap(self._final, np.float16, "r", 2 * at_final * width, (n - begin, width))
        return Conversation(tokens, begin, best, states, final)


def _numbers(read: Any) -> tuple[list[int], int, list[int]]:
    """The tokens of a conversation, where its answer begins, and the best tokens there. Raises ValueError, KeyError,
    TypeError where a line says something else."""
    tokens, begin, best = read["tokens"], read["begin"], read["best"]
    if not isinstance(tokens, list) or not isinstance(best, list) or not 0 < begin < len(tokens):
        raise ValueError("no conversation")
    if len(best) != len(tokens) - begin or not all(type(n) is int and 0 <= n < 1 << 24 for n in (*tokens, *best)):
        raise ValueError("no tokens")
    return tokens, begin, best


class Conversations:
    """Those of several logs, one after the other."""

    def __init__(self, logs: Sequence[ConversationLog]) -> None:
        self._places = [(log, i) for log in logs for i in range(len(log))]
        self.n_tokens = sum(log.n_tokens for log in logs)
        self.n_bytes = sum(log.n_bytes for log in logs)

    def __len__(self) -> int:
        return len(self._places)

    def length(self, i: int) -> int:
        """Tokens of a conversation."""
        log, at = self._places[i]
        return log.length(at)

    def read(self, i: int) -> Conversation:
        """A conversation, its states mapped from the disk."""
        log, at = self._places[i]
        return log.read(at)
