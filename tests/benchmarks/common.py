"""What the measuring scripts share: options, and rows of tokens.

Import it before `ggml_kernels` and `helpers`, which lie in tests/native.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "native"))

N_PROMPT = 64  # tokens before the measured ones
N_PREFILL = 256  # tokens of a measured prompt
N_CTX = 1024


def parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """With the options of every script."""
    new = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    new.add_argument("--threads", type=int, help="by default as many as cores")
    new.add_argument("--rounds", type=int, default=rounds, help="what is compared takes turns in each round")
    return new


def add_model(to: argparse.ArgumentParser, *, optional: str | None = None) -> None:
    """The positional argument; `optional` says what is done without it."""
    text = "a GGUF file; `specee-chat models path` prints the embedded one"
    to.add_argument(
        "model", type=Path, nargs="?" if optional else None, help=f"{text}; {optional}" if optional else text
    )


def some_tokens(n: int) -> list[int]:
    """Any will do: the time of a token does not depend on which it is."""
    return list(range(100, 100 + n))


def spread(ratios: Iterable[float]) -> tuple[float, float, float]:
    """Median, least and most: machines are noisy."""
    ordered = sorted(ratios)
    return statistics.median(ordered), ordered[0], ordered[-1]
