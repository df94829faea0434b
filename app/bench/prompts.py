"""What the benchmark asks."""

from __future__ import annotations

import json
import os
import select
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specee.app.errors import USAGE, AppError
from specee.app.options import Sampling
from specee.app.paths import expand
from specee.app.text_input import decode
from specee.models import local_file

MAX_BYTES = 64 << 20
"""Of a file with prompts."""


@dataclass(frozen=True)
class BenchPrompt:
    """A question with a name for the report, and the kind of question that it is."""

    id: str
    text: str
    category: str | None = None


@dataclass(frozen=True)
class Asked:
    """How all prompts are asked."""

    sampling: Sampling
    max_tokens: int
    system: str | None = None
    repeats: int = 1


# of several kinds, since drafts and exits depend on how predictable the answer is; calibration asks other questions
DEFAULT = (
    BenchPrompt("explain", "Explain how a refrigerator keeps food cold.", "knowledge"),
    BenchPrompt("story", "Write the opening of a story about a lighthouse keeper who finds a letter.", "writing"),
    BenchPrompt(
        "code", "Write a Python function that returns the largest gap between neighbours in a sorted list.", "code"
    ),
    BenchPrompt("list", "Name five things to check before renting a flat, each with one sentence.", "chat"),
    BenchPrompt(
        "sums", "A train leaves at 9:40 and arrives at 13:15. How long does the journey take? Show the steps.", "maths"
    ),
    BenchPrompt("rewrite", "Rewrite this politely: Send me the file now, you are late again.", "writing"),
    BenchPrompt("advice", "My tomato plants have yellow leaves. What could be wrong, and what should I do?", "chat"),
    BenchPrompt("facts", "What is the difference between weather and climate?", "knowledge"),
)


def read_prompts(path: str | None) -> list[BenchPrompt]:
    """Prompts of a JSON-lines file: objects with `prompt` and, if wanted, `id` and `category`. None: our own.

    Raises AppError, which names the line.
    """
    if path is None:
        return list(DEFAULT)
    try:
        decoded = decode(_content(expand(path)), path)
        if decoded.doubt is not None:  # what is measured must not be a guess
            raise ValueError("it is not UTF-8; convert it first")
        lines = decoded.text.split("\n")
    except (OSError, ValueError) as error:
        raise AppError("prompts not readable", f"{path}: {getattr(error, 'strerror', None) or error}", USAGE) from error
    numbers: dict[str, int] = {}
    prompts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            prompt = _read(line, number)
            if prompt.id in numbers:
                raise ValueError(f"the id {prompt.id!r} is that of line {numbers[prompt.id]}")
        except ValueError as error:
            raise AppError("prompts not readable", f"{path}, line {number}: {error}", USAGE) from error
        numbers[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise AppError("prompts not readable", f"{path} has no prompts", USAGE)
    return prompts


def _content(path: Path) -> bytes:
    """Of a file, or of what comes through a pipe, as <(...) of a shell is one. Raises OSError."""
    if not stat.S_ISFIFO(path.stat().st_mode):
        return local_file.read(path, MAX_BYTES)
    content = bytearray()
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:  # nobody may write to it
        while (piece := pipe.read(1 << 16)) != b"":
            if piece is None:
                select.select([pipe], [], [])
                continue
            content += piece
            if len(content) > MAX_BYTES:
                raise local_file.TooLargeError(path, MAX_BYTES)
    return bytes(content)


def _read(line: str, number: int) -> BenchPrompt:
    """Raises ValueError for what is not a prompt; without an id the line's number is one."""
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(entry, dict) or "prompt" not in entry:
        raise ValueError('expected an object: {"prompt": "..."}')
    text, name, category = entry["prompt"], entry.get("id", number), entry.get("category")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the prompt is {_kind(text)}, not a text")
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise ValueError(f"the id is {_kind(name)}, neither a text nor a number")
    if category is not None and not isinstance(category, str):
        raise ValueError(f"the category is {_kind(category)}, not a text")
    return BenchPrompt(str(name), text, category)


def _kind(value: Any) -> str:
    names = {str: "empty", bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "null")
