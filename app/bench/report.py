"""From rounds to figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from specee.app.bench import metrics
from specee.app.bench.answer import Answer, DenseScores, PolicyAnswer, Round
from specee.app.bench.prompts import BenchPrompt
from specee.app.bench.rounds import DENSE
from specee.app.bench.speed import Pair, Speed
from specee.app.first_difference import first_difference
from specee.predictors.decoding.stats import DecodingStats, add_positions
from specee.predictors.repetition import loop_start

Figures = dict[str, Any]
Choose = Callable[[Round], Answer | None]
"""One of the answers of a round; None where there is none."""


def report(
    policies: Mapping[str, Figures],
    prompts: Sequence[BenchPrompt],
    rounds: Sequence[Round],
    facts: Figures,
    *,
    complete: bool,
) -> Figures:
    """The object of --json: `facts`, and for each policy its figures and where its texts differ from dense.

    `policies`: by label what is known of each, such as what runs for it. Shares are between 0 and 1; what cannot be
    said is None. A speed-up is the geometric mean over the prompts, a prompt's the one over its rounds, each compared
    with dense of the same round. `until_loop` counts answers only up to the first repeated 12-gram of dense's answer.
    """
    figures = _Report(prompts, rounds, sampled=facts["temperature"] > 0)
    return {
        **facts,
        "complete": complete,
        "prompts": len({r.prompt for r in rounds}),
        "rounds": len(rounds),
        "policies": {label: {**known, **figures.policy(label)} for label, known in policies.items()},
        "stock": figures.stock() if rounds and rounds[0].stock is not None else None,
    }


class _Report:
    def __init__(self, prompts: Sequence[BenchPrompt], rounds: Sequence[Round], *, sampled: bool) -> None:
        self._prompts, self._rounds, self._sampled = prompts, rounds, sampled
        self._ends = [loop_start(r.answers[DENSE].tokens) for r in rounds]  # None where nothing repeats

    def policy(self, label: str) -> Figures:
        answers = [r.answers[label] for r in self._rounds]
        stats = sum((answer.stats for answer in answers), DecodingStats())
        differences = self._differences(lambda r: r.answers[label])
        return {
            **self._speeds(lambda r: r.answers[label], differences),
            "mean_exit_layer": _mean([layer for answer in answers for layer in answer.exit_layers]),
            "exit_layers": dict(sorted(Counter(layer for answer in answers for layer in answer.exit_layers).items())),
            "acceptance": metrics.ratio(stats.accepted, stats.tested),
            **_drafts(stats),
            "tokens_per_step": metrics.ratio(sum(answer.decoded() for answer in answers), stats.steps),
            "agreement": None if self._sampled else self._agreement(label),
            "ppl_ratio": self._ppl_ratio(label),
            "duplicate_words": metrics.duplicate_words(answer.text for answer in answers),
            "identical_texts": self._identical(differences),
            "first_differences": {self._prompts[i].id: at for i, at in differences.items()},
            "until_loop": {
                **self._speeds(lambda r: r.answers[label], differences, self._ends),
                **self._until_loop(answers),
                "agreement": None if self._sampled else self._agreement(label, until_loop=True),
            },
            "stats": stats.as_dict(),
        }

    def stock(self) -> Figures:
        """The library's sampled texts come from random numbers of its own: there is nothing to compare them with."""
        differences = {} if self._sampled else self._differences(_stock)
        return {
            **self._speeds(_stock, None if self._sampled else differences),
            "identical_texts": None if self._sampled else self._identical(differences),
            "first_differences": {self._prompts[i].id: at for i, at in differences.items()},
            "until_loop": self._speeds(_stock, None if self._sampled else differences, self._ends),
        }

    # ---- speed -----------------------------------------------------------------------------------------------------

    def _speeds(
        self, chosen: Choose, differences: Mapping[int, int] | None, ends: Sequence[int | None] | None = None
    ) -> Figures:
        """Rates, and what they are to those of dense and of the unpatched library; `ends`: tokens that count."""
        dense = self._speed(chosen, lambda r: r.answers[DENSE], ends)
        stock = self._speed(chosen, _stock, ends)
        return {
            "tokens": sum(pair.own.decoded(pair.end) + 1 for pair in dense.pairs),
            "tokens_per_second": dense.rate,
            "speedup": dense.mean,
            "speedup_min": dense.least,
            "speedup_max": dense.most,
            "vs_stock": stock.mean,
            "vs_stock_min": stock.least,
            "vs_stock_max": stock.most,
            "by_category": self._by_category(dense, stock, differences),
        }

    def _speed(self, chosen: Choose, baseline: Choose, ends: Sequence[int | None] | None) -> Speed:
        limits = ends if ends is not None else [None] * len(self._rounds)
        return Speed(
            [
                Pair(r.prompt, own, base, end)
                for r, end in zip(self._rounds, limits, strict=True)
                if (own := chosen(r)) is not None and (base := baseline(r)) is not None
            ]
        )

    def _by_category(self, dense: Speed, stock: Speed, differences: Mapping[int, int] | None) -> Figures:
        asked = sorted({r.prompt for r in self._rounds})
        found: Figures = {}
        for category in dict.fromkeys(self._prompts[i].category for i in asked):
            if category is None:
                continue
            members = {i for i in asked if self._prompts[i].category == category}
            found[category] = {
                "speedup": dense.of(members).mean,
                "vs_stock": stock.of(members).mean,
                "prompts": len(members),
                "identical_texts": None if differences is None else len(members - differences.keys()),
            }
        return found

    # ---- texts -----------------------------------------------------------------------------------------------------

    def _differences(self, chosen: Choose) -> dict[int, int]:
        """For each prompt whose text differs from dense's in any of its rounds: the first token that does."""
        found: dict[int, int] = {}
        for r in self._rounds:
            answer = chosen(r)
            at = None if answer is None else first_difference(answer.tokens, r.answers[DENSE].tokens)
            if at is not None:
                found[r.prompt] = min(at, found.get(r.prompt, at))
        return found

    def _identical(self, differences: Mapping[int, int]) -> int:
        return len({r.prompt for r in self._rounds} - differences.keys())

    def _scored(self, label: str) -> list[tuple[PolicyAnswer, DenseScores, int | None]]:
        """Answers with scores, and where they begin to repeat themselves."""
        found = zip(self._rounds, self._ends, strict=True)
        return [(r.answers[label], r.scores[label], end) for r, end in found if label in r.scores]

    def _agreement(self, label: str, *, until_loop: bool = False) -> float | None:
        return _mean(
            [
                token == choice
                for answer, scores, end in self._scored(label)
                for token, choice in zip(answer.tokens[: end if until_loop else None], scores.choices, strict=False)
            ]
        )

    def _ppl_ratio(self, label: str) -> float | None:
        mean = _mean([x for _, scores, _ in self._scored(label) for x in scores.nll])
        dense = _mean([x for _, scores, _ in self._scored(DENSE) for x in scores.nll])
        return None if mean is None or dense is None else math.exp(mean - dense)

    def _until_loop(self, answers: Sequence[PolicyAnswer]) -> Figures:
        ended = list(zip(answers, self._ends, strict=True))
        counts = [answer.counted(end) for answer, end in ended]
        return {
            "answers_that_loop": len({r.prompt for r, end in zip(self._rounds, self._ends, strict=True) if end}),
            "mean_exit_layer": _mean([layer for answer, end in ended for layer in answer.exit_layers[:end]]),
            "acceptance": metrics.ratio(sum(c.accepted for c in counts), sum(c.tested for c in counts)),
            "tokens_per_step": metrics.ratio(
                sum(answer.decoded(end) for answer, end in ended), sum(c.steps for c in counts)
            ),
        }


def _stock(r: Round) -> Answer | None:
    return r.stock


def _mean(values: Sequence[float]) -> float | None:
    return metrics.ratio(sum(values), len(values))


def _drafts(stats: DecodingStats) -> Figures:
    """Drafts by position, and by drafter."""
    drafted: list[int] = []
    accepted: list[int] = []
    for counts in stats.drafts.values():
        drafted, accepted = add_positions(drafted, counts.drafted), add_positions(accepted, counts.accepted)
    return {
        "acceptance_by_position": [metrics.ratio(a, d) for a, d in zip(accepted, drafted, strict=True)],
        "drafters": {
            drafter: {
                "drafted": sum(counts.drafted),
                "accepted": sum(counts.accepted),
                "acceptance": metrics.ratio(sum(counts.accepted), sum(counts.drafted)),
                "drafted_by_position": counts.drafted,
                "accepted_by_position": counts.accepted,
            }
            for drafter, counts in stats.drafts.items()
        },
    }
