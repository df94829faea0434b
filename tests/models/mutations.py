"""Changes to the header of a model."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

from specee.models import gguf_header

U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


class Mutations:
    """Changes to the header of a model, made in place on a copy without its weights, and taken back."""

    def __init__(self, model: Path, copy: Path, seed: int) -> None:
        header = gguf_header.read(model)
        self.end = header.tensors[0].offset
        with model.open("rb") as file:
            self.whole = file.read(self.end)
        copy.write_bytes(self.whole)
        self.path, self.size = copy, header.file_bytes
        self.chance = random.Random(seed)
        # where a header's numbers are: the values before the vocabulary, and the tensors
        vocabulary = self.whole.index(b"tokenizer.ggml.tokens")
        tensors = self.whole.index(b"token_embd.weight") - 8
        self.dense = [range(vocabulary + 40), range(tensors, self.end)]

    def __call__(self, count: int) -> Iterator[str]:
        """Mutates the copy `count` times and says how."""
        for _ in range(count):
            with self.path.open("r+b") as file:
                file.truncate(self.size)  # the weights are a hole
                how = self.chance.choice((self._cut, self._flip, self._number, self._text, self._noise))
                changed, how_said = how(file)
                file.flush()
                yield how_said
                for at, length in changed:
                    file.seek(at)
                    file.write(self.whole[at : at + length])
                file.truncate(self.size)

    def _at(self) -> int:
        """Mostly where it matters: two thirds of a header are the texts of its vocabulary."""
        where = self.chance.choice([*self.dense, *self.dense, range(self.end)])
        return self.chance.choice(where)

    def _cut(self, file: object) -> tuple[list[tuple[int, int]], str]:
        at = self._at()
        file.truncate(at)  # type: ignore[attr-defined]
        return [(at, self.end - at)], f"cut at {at}"

    def _write(self, file: object, at: int, data: bytes, how: str) -> tuple[list[tuple[int, int]], str]:
        at = min(at, self.end - len(data))
        file.seek(at)  # type: ignore[attr-defined]
        file.write(data)  # type: ignore[attr-defined]
        return [(at, len(data))], f"{how} at {at}"

    def _flip(self, file: object) -> tuple[list[tuple[int, int]], str]:
        at = self._at()
        return self._write(file, at, bytes([self.whole[at] ^ (1 << self.chance.randrange(8))]), "bit")

    def _number(self, file: object) -> tuple[list[tuple[int, int]], str]:
        """Counts, lengths, types, dimensions and offsets, made absurd."""
        value = self.chance.choice((0, 1, 0xFF, 1 << 16, 1 << 31, 1 << 40, 1 << 62, 1 << 63, (1 << 64) - 1))
        at = self.chance.choice((4, 8, 16, 24, self._at(), self._at(), self._at(), self._at()))
        if self.chance.random() < 0.3:
            return self._write(file, at, U32.pack(value & 0xFFFFFFFF), f"number {value:#x}")
        return self._write(file, at, U64.pack(value), f"long number {value:#x}")

    def _text(self, file: object) -> tuple[list[tuple[int, int]], str]:
        text = self.chance.choice((b"\x1b[2J\n\0", b"\xff\xfe\xfd", b"%s%n%x", b"../../", b"\0" * 9))
        return self._write(file, self._at(), text, "text")

    def _noise(self, file: object) -> tuple[list[tuple[int, int]], str]:
        return self._write(file, self._at(), self.chance.randbytes(self.chance.choice((2, 8, 64, 4096))), "noise")
