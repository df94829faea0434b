"""What the benchmark asks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from specee.app.errors import USAGE, AppError


@dataclass(frozen=True)
class BenchPrompt:
    """A question with a name for the report."""

    id: str
    text: str


# of several kinds, since exits depend on how predictable the answer is; calibration asks other questions
DEFAULT = (
    BenchPrompt("explain", "Explain how a refrigerator keeps food cold."),
    BenchPrompt("story", "Write the opening of a story about a lighthouse keeper who finds a letter."),
    BenchPrompt("code", "Write a Python function that returns the largest gap between neighbours in a sorted list."),
    BenchPrompt("list", "Name five things to check before renting a flat, each with one sentence."),
    BenchPrompt("sums", "A train leaves at 9:40 and arrives at 13:15. How long does the journey take? Show the steps."),
    BenchPrompt("rewrite", "Rewrite this politely: Send me the file now, you are late again."),
    BenchPrompt("advice", "My tomato plants have yellow leaves. What could be wrong, and what should I do?"),
    BenchPrompt("facts", "What is the difference between weather and climate?"),
)


def read_prompts(path: str | None) -> list[BenchPrompt]:
    """Prompts of a JSON-lines file: objects with `prompt` and, if wanted, `id`. None: our own. Raises AppError."""
    if path is None:
        return list(DEFAULT)
    try:
        lines = Path(path).expanduser().read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AppError("prompts not readable", f"{path}: {getattr(error, 'strerror', None) or error}", USAGE) from error
    prompts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            prompts.append(BenchPrompt(str(entry.get("id", number)), str(entry["prompt"])))
        except (ValueError, KeyError, AttributeError) as error:
            raise AppError(
                "prompts not readable", f'{path}, line {number}: expected {{"prompt": "..."}} as JSON', USAGE
            ) from error
    if not prompts:
        raise AppError("prompts not readable", f"{path} has no prompts", USAGE)
    return prompts
