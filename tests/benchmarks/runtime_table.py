"""What compare_runtimes.py measures, and the table that it prints."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from common import N_PROMPT, spread


class Case(NamedTuple):
    """n rows behind `at` tokens in the cache; behind none they are a prompt."""

    at: int
    n: int

    def __str__(self) -> str:
        if not self.at:
            return f"prompt of {self.n}, tokens/s"
        behind = f" with {self.at} in the cache" if self.at > N_PROMPT else ""
        return f"decode{behind}, tokens/s" if self.n == 1 else f"t({self.n})/t(1){behind}"


Seconds = dict[Case, list[float]]  # of each round
Results = dict[str, dict[str, Seconds]]  # by instruction set, then "ours", "stock", "ik"


def figures(case: Case, seconds: Seconds) -> list[float]:
    """Of each round: tokens a second, or how many times as long as one row n of them take."""
    took = seconds.get(case, [])
    if not case.at or case.n == 1:
        return [case.n / value for value in took]
    return [value / one for value, one in zip(took, seconds.get(Case(case.at, 1), []), strict=False)]


def cell(values: Sequence[float]) -> str:
    """Median, least and most."""
    digits = 0 if values and statistics.median(values) >= 100 else 2
    return "{:.{d}f} ({:.{d}f}-{:.{d}f})".format(*spread(values), d=digits) if values else ""


def table(results: Results) -> list[list[str]]:
    """Rows of text, the first one the heads."""
    kinds = [kind for kind in ("ours", "stock", "ik") if any(kind in of_set for of_set in results.values())]
    heads = ["instructions", "work"]
    for kind in kinds:
        heads += [kind, "x stock"] if kind != "stock" and "stock" in kinds else [kind]
    rows = [heads]
    for name, of_set in results.items():
        for case in dict.fromkeys(case for seconds in of_set.values() for case in seconds):
            row = [name, str(case)]
            for kind in kinds:
                seconds, stock = of_set.get(kind, {}), of_set.get("stock", {})
                row.append(cell(figures(case, seconds)))
                if kind != "stock" and "stock" in kinds:
                    both = zip(stock.get(case, []), seconds.get(case, []), strict=False)
                    row.append(cell([theirs / own for theirs, own in both]))
            rows.append(row)
    return rows


def markdown(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
