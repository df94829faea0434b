"""What was measured on this machine for each model, and is remembered: rates of policies, threads for a single row."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path

from specee.app import machine
from specee.app.engine.backend import Backend
from specee.app.engine.policy_comparison import PolicyComparison
from specee.app.options import PolicyChoice

FORMAT = 4
AUTO = PolicyChoice()


class Measurements:
    """Kept in a JSON file (None: for this process only). `build`: the library, whose speed was measured."""

    def __init__(self, path: Path | None = None, build: str = "") -> None:
        self._path, self._build = path, build

    @property
    def comparisons(self) -> dict[str, PolicyComparison]:
        """By `key`."""
        return self._stored[0]

    @property
    def threads(self) -> dict[str, int]:
        """The fewest threads that a single row is as fast with as with all, by `key`."""
        return self._stored[1]

    def key(self, backend: Backend, choice: PolicyChoice = AUTO) -> str:
        """The model, the machine and the build; and what the user chose, apart from `auto` itself."""
        key = f"{backend.sha256} | {machine.identity()} | {backend.info.threads} threads | {self._build}"
        return key if choice == AUTO else f"{key} | {choice.label}/{choice.max_pending}"

    def save(self) -> None:
        """Keeps the rounds so far. Those of a busy machine are forgotten with the process."""
        if self._path is None:
            return
        kept = {key: c for key, c in self.comparisons.items() if c.rounds and (c.steady or not c.decided)}
        measured = {key: {"rules": c.rules, "rounds": c.rounds} for key, c in kept.items()}
        content = {"format": FORMAT, "measured": measured, "threads": self.threads}
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(content, indent=1), "utf-8")
            part.replace(self._path)
        except OSError:
            part.unlink(missing_ok=True)

    @cached_property
    def _stored(self) -> tuple[dict[str, PolicyComparison], dict[str, int]]:
        comparisons: dict[str, PolicyComparison] = {}
        threads: dict[str, int] = {}
        try:
            stored = json.loads(self._path.read_text("utf-8")) if self._path else {}
            if stored.get("format") == FORMAT:
                comparisons = {k: _restored(v["rules"], v["rounds"]) for k, v in stored["measured"].items()}
                threads = {k: int(n) for k, n in stored["threads"].items() if int(n) > 0}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass  # a damaged file is measured again
        return comparisons, threads


def _restored(rules: list[str | None], rounds: list[list[float]]) -> PolicyComparison:
    if any(len(rates) != len(rules) + 1 or min(rates) <= 0 for rates in rounds):
        raise ValueError("rounds of other policies")
    return PolicyComparison(tuple(rules), [[float(rate) for rate in rates] for rates in rounds])
