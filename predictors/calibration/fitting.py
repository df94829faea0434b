"""From recorded answers to a calibration: lenses, draft head, exit predictors, schedule, thresholds, metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specee.predictors.calibration import exit_predictor_training, lens_fitting, recorded_rows
from specee.predictors.calibration.distillation import Teacher, distill
from specee.predictors.calibration.lens_fitting import Moments
from specee.predictors.calibration.probe_results import ProbeResults, probe_all
from specee.predictors.calibration.recorded_rows import Data, Rows
from specee.predictors.calibration.settings import CalibrationEngine, ProgressCallback, Settings
from specee.predictors.calibration.simulation import (
    Outcome,
    Scores,
    best_outcome,
    margin_rule,
    predictor_rule,
    score_all,
)
from specee.predictors.exits.exit_predictor import ExitPredictor
from specee.predictors.exits.features import feature_vector
from specee.predictors.exits.lm_head import LMHead
from specee.predictors.exits.low_rank import LowRank
from specee.predictors.exits.rules import ExitRules
from specee.predictors.exits.schedule import Schedule
from specee.predictors.types import Tokens

LENS_ALPHA = 0.01
DRAFT_ALPHA = 0.03
FOLDS = 3


@dataclass(frozen=True, slots=True)
class Fitted:
    """All parts of a calibration as float32 arrays."""

    lenses: dict[int, LowRank]
    predictors: dict[int, ExitPredictor]
    draft: LowRank
    shortlist: Tokens
    exit_layers: tuple[int, ...]
    offline: tuple[int, ...]
    threshold: float
    margin_layers: tuple[int, ...]
    margin_threshold: float
    metrics: dict[str, Any]


def fit(data: Data, engine: CalibrationEngine, settings: Settings, progress: ProgressCallback) -> Fitted:
    """Everything from the recorded rows. Deterministic for given rows and settings."""
    rules = ExitRules(k=settings.k, n_hidden=settings.n_hidden, drafters=settings.drafters)
    shortlist = recorded_rows.shortlist(data, settings, engine.n_vocab)
    head = LMHead.of(engine, shortlist)
    lenses = fit_lenses(data, head, settings, progress)
    draft = fit_draft(data, engine, head, settings, progress)
    rows = data.rows("bc", probed=True)
    inputs = recorded_rows.draft_inputs(data, rows, engine)
    up, bias = head.rows @ draft.up, head.rows @ draft.bias + head.constants
    linear = recorded_rows.linear_candidates(inputs, draft, up, bias, shortlist, rules.k)
    candidates = recorded_rows.candidates(data, rows, linear, rules)
    progress("probing the recorded rows", 0.0)
    results = probe_all(lenses, data, rows, candidates, shortlist, engine)
    exits = _ExitFitting(data, rows, candidates, results, engine.n_layer, settings, rules)
    exit_layers, offline, outcome, predictors = exits.choose(progress)
    margin = exits.choose_margin()
    progress("measuring", 0.0)
    metrics = exits.measure(predictors, exit_layers, offline, outcome, margin)
    metrics["lens_rank"] = next(iter(lenses.values())).down.shape[0]
    metrics["draft"].update(rank=int(draft.down.shape[0]), shortlist=len(shortlist))
    margin_layers = tuple(sorted(margin.exits))
    kept = sorted({*exit_layers, *margin_layers})
    return Fitted(
        lenses={layer: lenses[layer] for layer in kept},
        predictors=predictors,
        draft=draft,
        shortlist=shortlist,
        exit_layers=exit_layers,
        offline=offline,
        threshold=outcome.threshold,
        margin_layers=margin_layers,
        margin_threshold=margin.threshold,
        metrics=metrics,
    )


def fit_lenses(data: Data, head: LMHead, settings: Settings, progress: ProgressCallback) -> dict[int, LowRank]:
    """A lens for every recorded exit layer, from part a: ridge, then distillation; head of the shortlist."""
    rows = data.rows("a")
    final = data.final[rows]
    teacher = Teacher.of(final, head)
    metric = lens_fitting.head_metric(head.rows)
    out: dict[int, LowRank] = {}
    for i, (layer, states) in enumerate(data.states.items()):
        progress("fitting lenses", i / len(data.states))
        x = states[rows]
        model = lens_fitting.fit(Moments.of(x, final), settings.lens_rank or head.rows.shape[1], LENS_ALPHA, metric)
        out[layer] = distill(model, x, teacher, head, scaled=True, epochs=settings.tune_epochs, rate=2e-3).rounded()
    return out


def fit_draft(
    data: Data, engine: CalibrationEngine, head: LMHead, settings: Settings, progress: ProgressCallback
) -> LowRank:
    """The linear draft head, from part a."""
    progress("fitting the draft head", 0.0)
    rows = data.rows("a", probed=True)
    final = data.final[rows]
    x = recorded_rows.draft_inputs(data, rows, engine)
    model = lens_fitting.fit(
        Moments.of(x, final), settings.draft_rank, DRAFT_ALPHA, lens_fitting.head_metric(head.rows)
    )
    epochs = 2 * settings.tune_epochs
    return distill(model, x, Teacher.of(final, head), head, scaled=False, epochs=epochs, rate=2e-3).rounded()


class _ExitFitting:
    """Predictors and thresholds on part b, held-out metrics on part c. `rows` covers both."""

    def __init__(
        self,
        data: Data,
        rows: Rows,
        candidates: NDArray[np.int32],
        results: dict[int, ProbeResults],
        n_layer: int,
        settings: Settings,
        rules: ExitRules,
    ) -> None:
        self.results, self.n_layer, self.settings, self.rules, self.candidates = (
            results,
            n_layer,
            settings,
            rules,
            candidates,
        )
        self.answers = data.answer[rows]
        self.best = data.best[rows]
        self.b = np.flatnonzero(data.part[rows] == "b")
        self.c = np.flatnonzero(data.part[rows] == "c")
        self.folds = recorded_rows.fold_of(data, rows[self.b], FOLDS)
        greedy = data.greedy[rows[self.b]]
        self.threshold_rows = greedy if greedy.any() else np.ones(len(self.b), np.bool_)  # of part b

    def choose(
        self, progress: ProgressCallback
    ) -> tuple[tuple[int, ...], tuple[int, ...], Outcome, dict[int, ExitPredictor]]:
        """Exit layers by their share of exits with all armed; the offline schedule; threshold; final predictors."""
        exit_layers = tuple(self.results)
        for limit in (self.settings.max_exit_layers, 0):
            progress("training predictors", 0.5 if limit == 0 else 0.0)
            scores = self.cross_scores(exit_layers)
            everywhere = self.best_outcome(scores, exit_layers, exit_layers)
            ranked = [
                layer for layer, n in Counter(everywhere.exits).most_common() if n >= 0.002 * self.threshold_rows.sum()
            ]
            if limit:
                exit_layers = tuple(sorted(ranked[:limit] or exit_layers[-2:]))
        offline = tuple(sorted(ranked[: self.settings.n_offline] or exit_layers[-1:]))
        outcome = self.best_outcome(scores, exit_layers, offline)
        progress("training predictors", 0.9)
        held = self.folds == 0
        predictors = {layer: self.train(layer, exit_layers, self.b, held) for layer in exit_layers}
        return exit_layers, offline, outcome, predictors

    def cross_scores(self, exit_layers: tuple[int, ...]) -> Scores:
        """Scores on part b by predictors that were trained on other folds of it."""
        out: Scores = {}
        for fold in range(FOLDS):
            mine = self.b[self.folds == fold]
            others, other_folds = self.b[self.folds != fold], self.folds[self.folds != fold]
            held = other_folds == (fold + 1) % FOLDS
            predictors = {layer: self.train(layer, exit_layers, others, held) for layer in exit_layers}
            for key, values in score_all(predictors, self.results, mine).items():
                out.setdefault(key, np.zeros(len(self.b), np.float32))[self.folds == fold] = values
        return out

    def train(self, layer: int, exit_layers: tuple[int, ...], rows: Rows, held: NDArray[np.bool_]) -> ExitPredictor:
        """One predictor. Its previous probe is mostly the next exit layer below, at times another or none."""
        this = self.results[layer]
        before = [c for c in exit_layers if c < layer]
        rng = np.random.default_rng((self.settings.seed, layer))
        uniform = np.full_like(this.probs[rows], 1.0 / this.probs.shape[1])
        views = [self.results[before[-1]].probs[rows] if before else uniform]
        if before:
            pick = rng.integers(0, len(before) + 1, len(rows))
            every = np.stack([uniform, *(self.results[c].probs[rows] for c in before)])
            views.append(every[pick, np.arange(len(rows))])
        features = np.concatenate([feature_vector(this.logits[rows], this.probs[rows], view) for view in views])
        labels = np.tile((this.passes & this.right)[rows], len(views))
        return exit_predictor_training.train(
            features, labels, np.tile(held, len(views)), self.settings.n_hidden, seed=layer
        )

    def outcome(
        self, scores: Scores, exit_layers: tuple[int, ...], offline: tuple[int, ...], threshold: float, rows: Rows
    ) -> Outcome:
        return predictor_rule(
            scores,
            {layer: self.results[layer].passes[rows] for layer in exit_layers},
            {layer: self.results[layer].right[rows] for layer in exit_layers},
            {layer: self.results[layer].regret[rows] for layer in exit_layers},
            self.answers[rows],
            self.n_layer,
            threshold,
            lambda: Schedule(exit_layers, offline, recent_exits=self.rules.recent_exits, reach=self.rules.reach),
        )

    def best_outcome(self, scores: Scores, exit_layers: tuple[int, ...], offline: tuple[int, ...]) -> Outcome:
        """The threshold for the target on the greedy answers of part b."""
        target, rows = self.settings.target_agreement, self.b[self.threshold_rows]
        theirs = {key: values[self.threshold_rows] for key, values in scores.items()}
        limit = self.settings.ppl_limit
        return best_outcome(lambda t: self.outcome(theirs, exit_layers, offline, t, rows), target, limit)

    def choose_margin(self) -> Outcome:
        """One or two exit layers for the margin rule, always armed, and its threshold."""
        target = self.settings.target_agreement
        rows = self.b[self.threshold_rows]
        results = {layer: _select(v, rows) for layer, v in self.results.items()}
        sets = [*((layer,) for layer in results), *combinations(results, 2)]
        best = self.best[rows]
        limit = self.settings.ppl_limit
        outcomes = [
            best_outcome(partial(margin_rule, results, best, layers, self.n_layer), target, limit) for layers in sets
        ]
        return min(outcomes, key=lambda o: o.mean_exit_layer + 0.1 * len(o.exits))  # a probe costs time too

    def measure(
        self,
        predictors: dict[int, ExitPredictor],
        exit_layers: tuple[int, ...],
        offline: tuple[int, ...],
        chosen: Outcome,
        margin: Outcome,
    ) -> dict[str, Any]:
        """Metrics on part c, which nothing was fitted on."""
        c = self.c
        scores = score_all(predictors, self.results, c)
        per_exit_layer = {}
        for layer in exit_layers:
            before = max((x for x in exit_layers if x < layer), default=0)
            found, probed = scores[layer, before], self.results[layer]
            label, above = (probed.passes & probed.right)[c], found > chosen.threshold
            per_exit_layer[str(layer)] = {
                "agreement": _ratio(probed.right[c].sum(), len(c)),
                "auc": round(exit_predictor_training.auc(found, label), 4),
                "precision": _ratio((above & label).sum(), above.sum()),
                "precision_after_check": _ratio((above & label).sum(), (above & probed.passes[c]).sum()),
                "recall": _ratio((above & label).sum(), label.sum()),
            }
        held_out = {layer: _select(v, c) for layer, v in self.results.items()}
        hits = (self.candidates == self.best[:, None])[c]
        layers = tuple(sorted(margin.exits))
        return {
            "rows": {"predictors": len(self.b), "held_out": len(c)},
            "exit_layers": per_exit_layer,
            "draft": {"top1": _ratio(hits[:, 0].sum(), len(c)), "candidates": _ratio(hits.any(1).sum(), len(c))},
            "calibrated": self.outcome(scores, exit_layers, offline, chosen.threshold, c).as_dict(),
            "paper": self.outcome(scores, exit_layers, offline, ExitRules().threshold, c).as_dict(),
            "margin": margin_rule(held_out, self.best[c], layers, self.n_layer, margin.threshold).as_dict(),
            "on_calibration_split": {"calibrated": chosen.as_dict(), "margin": margin.as_dict()},
        }


def _select(results: ProbeResults, rows: Rows) -> ProbeResults:
    return ProbeResults(*(getattr(results, name)[rows] for name in ProbeResults.__slots__))


def _ratio(part: Any, whole: Any) -> float:
    return round(float(part) / max(float(whole), 1.0), 4)
