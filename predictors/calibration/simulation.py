"""Exits on recorded text: what a threshold gives, schedule included (teacher-forced)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specee.predictors.calibration.probe_results import ProbeResults
from specee.predictors.calibration.recorded_rows import Mask
from specee.predictors.exits.exit_predictor import ExitPredictor
from specee.predictors.exits.features import feature_vector
from specee.predictors.exits.schedule import Schedule
from specee.predictors.types import Floats

THRESHOLDS = (*np.arange(0.02, 0.9, 0.02).tolist(), *np.arange(0.9, 0.9951, 0.005).tolist())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule gives on some rows."""

    threshold: float
    mean_exit_layer: float
    agreement: float
    exit_share: float
    exits: dict[int, int]
    ppl_ratio: float = 1.0
    """Perplexity of the tokens under the dense model over that of its own, as estimated from the logits."""
    mean_armed: float = 0.0
    hit_rate: float = 0.0

    def as_dict(self) -> dict[str, object]:
        rounded = {name: round(float(getattr(self, name)), 4) for name in _RATIOS}
        return {**rounded, "exits": {str(layer): n for layer, n in self.exits.items()}}


_RATIOS = ("threshold", "mean_exit_layer", "agreement", "exit_share", "ppl_ratio", "mean_armed", "hit_rate")

Scores = dict[tuple[int, int], Floats]  # (exit layer, exit layer of the probe before, or 0) -> [n]


def score_all(
    predictors: dict[int, ExitPredictor], results: dict[int, ProbeResults], rows: NDArray[np.int64] | slice
) -> Scores:
    """Scores for every exit layer after every possible previous probe."""
    out: Scores = {}
    for layer, predictor in predictors.items():
        for before in (0, *(c for c in predictors if c < layer)):
            previous = results[before].probs[rows] if before else None
            out[layer, before] = predictor(
                feature_vector(results[layer].logits[rows], results[layer].probs[rows], previous)
            )
    return out


def predictor_rule(
    scores: Scores,
    passes: dict[int, Mask],
    right: dict[int, Mask],
    regret: dict[int, Floats],
    answers: NDArray[np.int32],
    n_layer: int,
    threshold: float,
    new_schedule: Callable[[], Schedule],
) -> Outcome:
    """The paper's rule row after row: armed exit layers, scores, full-head check, schedule."""
    exits: dict[int, int] = dict.fromkeys(right, 0)
    layers = agreed = armed_sum = hits = 0
    regrets = 0.0
    schedule, current = new_schedule(), -1
    for i in range(len(answers)):
        if answers[i] != current:
            current = int(answers[i])
            schedule = new_schedule()
        armed = schedule.armed()
        armed_sum += len(armed)
        before, exit_layer = 0, None
        for layer in armed:
            if scores[layer, before][i] > threshold and passes[layer][i]:
                exit_layer = layer
                break
            before = layer
        hits += schedule.record(exit_layer)
        layers += exit_layer or n_layer
        agreed += 1 if exit_layer is None else int(right[exit_layer][i])
        if exit_layer is not None:
            exits[exit_layer] += 1
            regrets += float(regret[exit_layer][i])
    n, exited = max(len(answers), 1), sum(exits.values())
    ppl_ratio = float(np.exp(regrets / n))
    return Outcome(
        threshold, layers / n, agreed / n, exited / n, exits, ppl_ratio, armed_sum / n, hits / max(exited, 1)
    )


def margin_rule(
    results: dict[int, ProbeResults], best: NDArray[np.int32], layers: tuple[int, ...], n_layer: int, threshold: float
) -> Outcome:
    """Exit at the first of `layers` whose lead is above the threshold; best [n]: the dense model's tokens."""
    depth = np.full(len(best), n_layer)
    right = np.ones(len(best), np.bool_)
    regret = np.zeros(len(best), np.float32)
    for layer in sorted(layers, reverse=True):
        exiting = results[layer].lead > threshold
        depth[exiting] = layer
        right[exiting] = results[layer].short_token[exiting] == best[exiting]
        regret[exiting] = results[layer].short_regret[exiting]
    exits = {layer: int((depth == layer).sum()) for layer in layers}
    share = float((depth < n_layer).mean())
    ppl_ratio = float(np.exp(regret.mean()))
    return Outcome(threshold, float(depth.mean()), float(right.mean()), share, exits, ppl_ratio, len(layers), 0.0)


def best_outcome(
    outcome_at: Callable[[float], Outcome],
    target: float,
    ppl_limit: float = np.inf,
    thresholds: Iterable[float] = THRESHOLDS,
) -> Outcome:
    """The outcome with the least mean exit layer that agrees in `target` of the tokens, within the perplexity limit.

    The strictest threshold when none does.
    """
    outcomes = [outcome_at(float(t)) for t in thresholds]
    good = [o for o in outcomes if o.agreement >= target and o.ppl_ratio <= ppl_limit]
    return min(good, key=lambda o: o.mean_exit_layer) if good else max(outcomes, key=lambda o: o.threshold)
