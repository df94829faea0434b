"""From recorded answers to a calibration: lenses, draft head, predictors, boundaries, schedule, thresholds, metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specee.predictors.calibration import recorded_rows as data_
from specee.predictors.calibration.distillation import Teacher, tune
from specee.predictors.calibration.probe_results import Looks, look
from specee.predictors.calibration.recorded_rows import Data, Rows
from specee.predictors.calibration.settings import CalibrationEngine, ProgressCallback, Settings
from specee.predictors.calibration.simulation import Outcome, Scores, lowest, margin_rule, predictor_rule, score_all
from specee.predictors.exits import exit_predictor as mlp_
from specee.predictors.exits import lens as lenses_
from specee.predictors.exits.exit_predictor import MLP
from specee.predictors.exits.features import assemble
from specee.predictors.exits.lens import LowRank, Moments
from specee.predictors.exits.rules import ExitRules
from specee.predictors.exits.schedule import Schedule
from specee.predictors.types import Floats, Tokens

LENS_ALPHA = 0.01
DRAFT_ALPHA = 0.03
FOLDS = 3


@dataclass(frozen=True, slots=True)
class Fitted:
    """All parts of a calibration as float32 arrays."""

    lenses: dict[int, LowRank]
    predictors: dict[int, MLP]
    draft: LowRank
    words: Tokens
    boundaries: tuple[int, ...]
    offline: tuple[int, ...]
    threshold: float
    margin_layers: tuple[int, ...]
    margin_threshold: float
    metrics: dict[str, Any]


def fit(data: Data, engine: CalibrationEngine, settings: Settings, progress: ProgressCallback) -> Fitted:
    """Everything from the recorded rows. Deterministic for given rows and settings."""
    rules = ExitRules(k=settings.k, n_hidden=settings.n_hidden)
    words = data_.shortlist(data, settings, engine.n_vocab)
    head = engine.head_rows(words)
    lenses = fit_lenses(data, head, settings, progress)
    draft = fit_draft(data, engine, head, settings, progress)
    rows = data.rows("bc", probed=True)
    inputs = data_.draft_inputs(data, rows, engine)
    cands = data_.candidates(data, rows, inputs, draft, head @ draft.up, head @ draft.bias, words, rules)
    progress("looking through the lenses", 0.0)
    looks = look(lenses, data, rows, cands, words, engine)
    study = _Study(data, rows, cands, looks, engine.n_layer, settings, rules)
    boundaries, offline, outcome, mlps = study.choose(progress)
    margin = study.choose_margin()
    progress("measuring", 0.0)
    metrics = study.measure(mlps, boundaries, offline, outcome, margin)
    metrics["lens_rank"] = next(iter(lenses.values())).down.shape[0]
    metrics["draft"].update(rank=int(draft.down.shape[0]), shortlist=len(words))
    margin_layers = tuple(sorted(margin.exits))
    kept = sorted({*boundaries, *margin_layers})
    return Fitted(
        lenses={b: lenses[b] for b in kept},
        predictors=mlps,
        draft=draft,
        words=words,
        boundaries=boundaries,
        offline=offline,
        threshold=outcome.threshold,
        margin_layers=margin_layers,
        margin_threshold=margin.threshold,
        metrics=metrics,
    )


def fit_lenses(data: Data, head: Floats, settings: Settings, progress: ProgressCallback) -> dict[int, LowRank]:
    """A lens for every recorded boundary, from part a: ridge, then distillation; head [n_short, n_embd]."""
    rows = data.rows("a")
    final = data.final[rows]
    teacher = Teacher.of(final, head)
    metric = lenses_.head_metric(head)
    out: dict[int, LowRank] = {}
    for i, (b, states) in enumerate(data.states.items()):
        progress("fitting lenses", i / len(data.states))
        x = states[rows]
        model = lenses_.fit(Moments.of(x, final), settings.lens_rank or head.shape[1], LENS_ALPHA, metric)
        out[b] = tune(model, x, teacher, head, scaled=True, epochs=settings.tune_epochs, rate=2e-3).rounded()
    return out


def fit_draft(
    data: Data, engine: CalibrationEngine, head: Floats, settings: Settings, progress: ProgressCallback
) -> LowRank:
    """The linear draft head, from part a."""
    progress("fitting the draft head", 0.0)
    rows = data.rows("a", probed=True)
    final = data.final[rows]
    x = data_.draft_inputs(data, rows, engine)
    model = lenses_.fit(Moments.of(x, final), settings.draft_rank, DRAFT_ALPHA, lenses_.head_metric(head))
    epochs = 2 * settings.tune_epochs
    return tune(model, x, Teacher.of(final, head), head, scaled=False, epochs=epochs, rate=2e-3).rounded()


class _Study:
    """Predictors and thresholds on part b, held-out metrics on part c. `rows` covers both."""

    def __init__(
        self,
        data: Data,
        rows: Rows,
        cands: NDArray[np.int32],
        looks: dict[int, Looks],
        n_layer: int,
        settings: Settings,
        rules: ExitRules,
    ) -> None:
        self.looks, self.n_layer, self.settings, self.rules, self.cands = looks, n_layer, settings, rules, cands
        self.answers = data.answer[rows]
        self.best = data.best[rows]
        self.b = np.flatnonzero(data.part[rows] == "b")
        self.c = np.flatnonzero(data.part[rows] == "c")
        self.folds = data_.fold_of(data, rows[self.b], FOLDS)
        greedy = data.greedy[rows[self.b]]
        self.judges = greedy if greedy.any() else np.ones(len(self.b), np.bool_)  # rows of b that set thresholds

    def choose(self, progress: ProgressCallback) -> tuple[tuple[int, ...], tuple[int, ...], Outcome, dict[int, MLP]]:
        """Boundaries by their share of exits with all armed; the offline schedule; threshold; final predictors."""
        boundaries = tuple(self.looks)
        for limit in (self.settings.max_boundaries, 0):
            progress("training predictors", 0.5 if limit == 0 else 0.0)
            scores = self.cross_scores(boundaries)
            everywhere = self.lowest(scores, boundaries, boundaries)
            ranked = [b for b, n in Counter(everywhere.exits).most_common() if n >= 0.002 * self.judges.sum()]
            if limit:
                boundaries = tuple(sorted(ranked[:limit] or boundaries[-2:]))
        offline = tuple(sorted(ranked[: self.settings.n_offline] or boundaries[-1:]))
        outcome = self.lowest(scores, boundaries, offline)
        progress("training predictors", 0.9)
        held = self.folds == 0
        mlps = {b: self.train(b, boundaries, self.b, held) for b in boundaries}
        return boundaries, offline, outcome, mlps

    def cross_scores(self, boundaries: tuple[int, ...]) -> Scores:
        """Scores on part b by predictors that were trained on other folds of it."""
        out: Scores = {}
        for fold in range(FOLDS):
            mine = self.b[self.folds == fold]
            others, other_folds = self.b[self.folds != fold], self.folds[self.folds != fold]
            held = other_folds == (fold + 1) % FOLDS
            mlps = {b: self.train(b, boundaries, others, held) for b in boundaries}
            for key, values in score_all(mlps, self.looks, mine).items():
                out.setdefault(key, np.zeros(len(self.b), np.float32))[self.folds == fold] = values
        return out

    def train(self, b: int, boundaries: tuple[int, ...], rows: Rows, held: NDArray[np.bool_]) -> MLP:
        """One predictor. Its previous probe is mostly the next boundary below, at times another or none."""
        this = self.looks[b]
        before = [c for c in boundaries if c < b]
        rng = np.random.default_rng((self.settings.seed, b))
        uniform = np.full_like(this.probs[rows], 1.0 / this.probs.shape[1])
        views = [self.looks[before[-1]].probs[rows] if before else uniform]
        if before:
            pick = rng.integers(0, len(before) + 1, len(rows))
            every = np.stack([uniform, *(self.looks[c].probs[rows] for c in before)])
            views.append(every[pick, np.arange(len(rows))])
        features = np.concatenate([assemble(this.logits[rows], this.probs[rows], view) for view in views])
        labels = np.tile((this.passes & this.right)[rows], len(views))
        return mlp_.train(features, labels, np.tile(held, len(views)), self.settings.n_hidden, seed=b)

    def outcome(
        self, scores: Scores, boundaries: tuple[int, ...], offline: tuple[int, ...], threshold: float, rows: Rows
    ) -> Outcome:
        return predictor_rule(
            scores,
            {b: self.looks[b].passes[rows] for b in boundaries},
            {b: self.looks[b].right[rows] for b in boundaries},
            {b: self.looks[b].regret[rows] for b in boundaries},
            self.answers[rows],
            self.n_layer,
            threshold,
            lambda: Schedule(boundaries, offline, recent_exits=self.rules.recent_exits, reach=self.rules.reach),
        )

    def lowest(self, scores: Scores, boundaries: tuple[int, ...], offline: tuple[int, ...]) -> Outcome:
        """The threshold for the target on the greedy answers of part b."""
        target, rows = self.settings.target_agreement, self.b[self.judges]
        judged = {key: values[self.judges] for key, values in scores.items()}
        limit = self.settings.ppl_limit
        return lowest(lambda t: self.outcome(judged, boundaries, offline, t, rows), target, limit)

    def choose_margin(self) -> Outcome:
        """One or two boundaries for the margin rule, always armed, and its threshold."""
        target = self.settings.target_agreement
        rows = self.b[self.judges]
        looks = {b: _select(v, rows) for b, v in self.looks.items()}
        sets = [*((b,) for b in looks), *combinations(looks, 2)]
        best = self.best[rows]
        limit = self.settings.ppl_limit
        outcomes = [lowest(partial(margin_rule, looks, best, layers, self.n_layer), target, limit) for layers in sets]
        return min(outcomes, key=lambda o: o.mean_exit_layer + 0.1 * len(o.exits))  # a look costs time too

    def measure(
        self,
        mlps: dict[int, MLP],
        boundaries: tuple[int, ...],
        offline: tuple[int, ...],
        chosen: Outcome,
        margin: Outcome,
    ) -> dict[str, Any]:
        """Metrics on part c, which nothing was fitted on."""
        c = self.c
        scores = score_all(mlps, self.looks, c)
        per_boundary = {}
        for b in boundaries:
            before = max((x for x in boundaries if x < b), default=0)
            found, lk = scores[b, before], self.looks[b]
            label, above = (lk.passes & lk.right)[c], found > chosen.threshold
            per_boundary[str(b)] = {
                "agreement": _ratio(lk.right[c].sum(), len(c)),
                "auc": round(mlp_.auc(found, label), 4),
                "precision": _ratio((above & label).sum(), above.sum()),
                "precision_after_check": _ratio((above & label).sum(), (above & lk.passes[c]).sum()),
                "recall": _ratio((above & label).sum(), label.sum()),
            }
        looks_c = {b: _select(v, c) for b, v in self.looks.items()}
        hits = (self.cands == self.best[:, None])[c]
        layers = tuple(sorted(margin.exits))
        return {
            "rows": {"predictors": len(self.b), "held_out": len(c)},
            "boundaries": per_boundary,
            "draft": {"top1": _ratio(hits[:, 0].sum(), len(c)), "candidates": _ratio(hits.any(1).sum(), len(c))},
            "calibrated": self.outcome(scores, boundaries, offline, chosen.threshold, c).as_dict(),
            "paper": self.outcome(scores, boundaries, offline, ExitRules.paper().threshold, c).as_dict(),
            "margin": margin_rule(looks_c, self.best[c], layers, self.n_layer, margin.threshold).as_dict(),
            "on_calibration_split": {"calibrated": chosen.as_dict(), "margin": margin.as_dict()},
        }


def _select(looks: Looks, rows: Rows) -> Looks:
    return Looks(*(getattr(looks, name)[rows] for name in Looks.__slots__))


def _ratio(part: Any, whole: Any) -> float:
    return round(float(part) / max(float(whole), 1.0), 4)
