"""Which models suit a machine, the one to take first. A pure function of what is known about both."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import geometric_mean
from typing import Any, Literal, get_args

from specee.app.formatting import size
from specee.app.options import DEFAULT_CTX, DEFAULT_KV_TYPE
from specee.app.recommend import estimate
from specee.app.recommend.candidate import Candidate, DraftHead, LocalModel, candidates
from specee.app.recommend.experience import NO_EXPERIENCE, Experience, Measured
from specee.app.recommend.machine import DecodingSpeed, Machine
from specee.app.settings import KVType, Purpose
from specee.models.registry import RegistryEntry

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
Place = Literal["GPU", "memory", "does not fit"]

SMALL_BYTES = 1_200_000_000  # of memory, in all: beside a browser on any machine
READING = 8.0  # tokens a second that people read
THINKING = 20.0  # those of a model that thinks before it answers
DOUBLING_YEARS = 1.0
"""A model is as good as one of twice its size that is so much older: the trend of the last years, on the careful side
("Densing law of LLMs", Xiao et al., 2024, find a third of it)."""
FIRST_YEAR = 2023
OF_UNKNOWN_AGE = "2024-06"
ELSE = 0.2
"""How well a model suits a purpose that it is not named for, to one that is."""
IMPATIENCE = 0.7
"""How well one that thinks first suits what needs no thinking."""
MOST = 3.0  # that estimates are corrected by; beyond it a measurement is no longer of this machine as it is
READS = 0.5
"""Share of a token's time that reading weights must have, for a model to correct what is expected of others."""
COMFORT = 0.7
"""Beyond this share of the memory that is free a model is only taken where no other one suits: what else runs will want
some, and a long chat."""
SHARE = 0.95  # of the memory that is free: the driver of a GPU wants some, and other programs grow


@dataclass(frozen=True)
class Recommendation:
    """A model on this machine. Sizes in bytes; rates in tokens a second, None where they are not known.

    `best_for`: what it is the best for here; `good_for`: what it is made for and does well. `missing_bytes`: how much
    memory, or room on the disk, is missing where it does not fit. `expected`: of dense decoding;
    `expected_with_drafts`: as it would answer; `measured`: dense, when it has run here. `drafter`: what drafts for it,
    where both fit. `exact`: by the file's header. `commands` fetch what is not here, and start it.
    """

    name: str
    why: str
    best_for: tuple[Purpose, ...]
    good_for: tuple[str, ...]
    place: Place
    missing_bytes: int
    file_bytes: int
    memory_bytes: int
    expected: float | None
    expected_with_drafts: float | None
    measured: float | None
    licence: str
    parameters: str
    notes: str
    here: bool
    where: str
    drafter: str
    drafter_here: bool
    exact: bool
    commands: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return self.place != "does not fit"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "fits": self.fits}


def recommend(
    machine: Machine,
    entries: Iterable[RegistryEntry],
    here: Mapping[str, LocalModel],
    experience: Experience = NO_EXPERIENCE,
    heads: Mapping[str, DraftHead] | None = None,
    *,
    purpose: Purpose = "chat",
    window: int = DEFAULT_CTX,
    kv_type: KVType = DEFAULT_KV_TYPE,
) -> tuple[Recommendation, ...]:
    """All models, the one to take first, those that do not fit last.

    `here`: models on this machine, by the name of the registry, or another one for those that it does not have.
    `heads`: draft heads, by the SHA-256 of their model.
    """
    found = {candidate.name: candidate for candidate in candidates(entries, here)}
    correction = _correction(machine.speed, found.values(), experience)
    fits = [
        _fit(candidate, machine, (window, kv_type), correction, _Drafts(found, experience, heads or {}))
        for candidate in found.values()
    ]
    best: dict[Purpose, _Fit] = {}
    for of in PURPOSES:
        suited = [fit for fit in fits if of in fit.candidate.good_for and fit.score(of)]
        if suited:
            best[of] = max(suited, key=lambda fit: (not fit.is_tight, fit.score(of)))
    fits.sort(key=lambda fit: (fit.missing, fit.is_tight, -fit.score(purpose), -fit.score("chat"), fit.memory))
    return tuple(_recommendation(fit, best) for fit in fits)


@dataclass(frozen=True)
class _Fit:
    """A model on a machine."""

    candidate: Candidate
    place: Place
    missing: int
    off_disk: bool
    """It is the disk that has no room for it."""
    memory: int
    is_tight: bool
    """It leaves other programs little memory."""
    drafter: Candidate | None
    """That fits, too."""
    dense: float | None
    drafted: float | None
    measured: float | None

    @property
    def wanted_rate(self) -> float:
        return THINKING if self.candidate.thinks else READING

    @property
    def is_slow(self) -> bool:
        return self.drafted is not None and self.drafted < self.wanted_rate

    def score(self, purpose: Purpose) -> float:
        """How well it suits; 0: not at all."""
        if self.place == "does not fit" or (purpose == "small" and self.memory > SMALL_BYTES):
            return 0.0
        suits = 1.0 if purpose in self.candidate.good_for else ELSE
        if self.candidate.thinks and purpose != "reasoning":
            suits *= IMPATIENCE
        patience = min(1.0, self.drafted / self.wanted_rate) ** 2 if self.drafted is not None else 1.0
        return _strength(self.candidate) * suits * patience


def _strength(candidate: Candidate) -> float:
    """In parameters of a model of FIRST_YEAR; a mixture of experts is as good as one between all and active ones."""
    facts = candidate.facts
    size = facts.parameters**0.6 * facts.active_parameters**0.4
    year, _, month = (candidate.released or OF_UNKNOWN_AGE).partition("-")
    age = int(year) - FIRST_YEAR + int(month or 1) / 12
    return float(size * 2 ** (age / DOUBLING_YEARS))


def _correction(speed: DecodingSpeed | None, known: Iterable[Candidate], experience: Experience) -> float:
    """The seconds that tokens took here over those that were expected. Of models that are so small that their weights
    are not what takes the time, nothing follows for others."""
    if speed is None:
        return 1.0
    ratios = []
    for candidate in known:
        measured = experience.models.get(candidate.sha256 or "")
        expected = estimate.seconds_per_token(candidate.facts, speed)
        read = estimate.reads_share(candidate.facts, speed)
        if candidate.local is not None and measured is not None and expected and read >= READS:
            ratios.append(1.0 / measured.dense_rate / expected)
    return min(MOST, max(1 / MOST, geometric_mean(ratios))) if ratios else 1.0


@dataclass(frozen=True)
class _Drafts:
    """What drafts bring."""

    found: Mapping[str, Candidate]
    experience: Experience
    heads: Mapping[str, DraftHead]

    def speedup(self, candidate: Candidate, drafter: Candidate | None, speed: DecodingSpeed, seconds: float) -> float:
        known = self.measured(candidate)
        if known is not None and known.speedup is not None:
            return known.speedup
        rows = known.rows if known is not None and known.rows else estimate.rows_of(candidate.facts, speed)
        best = estimate.speedup(rows, *estimate.RETRIEVED)
        if (head := self.heads.get(candidate.sha256 or "")) is not None:
            cost = head.file_bytes / max(1, candidate.facts.read_bytes)
            best = max(best, estimate.speedup(rows, 1.0, head.acceptance, cost))
        if drafter is not None and (guess := estimate.seconds_per_token(drafter.facts, speed)):
            best = max(best, estimate.speedup(rows, *estimate.PAIRED, guess / seconds))
        return best

    def measured(self, candidate: Candidate) -> Measured | None:
        return self.experience.models.get(candidate.sha256 or "")


def _fit(
    candidate: Candidate, machine: Machine, window: tuple[int, KVType], correction: float, drafts: _Drafts
) -> _Fit:
    memory = estimate.needed_memory(candidate.facts, *window)
    place: Place = "memory"
    missing, off_disk, speed, room, known = 0, False, machine.speed, machine.free_ram, drafts.measured(candidate)
    if machine.gpus and memory <= machine.free_vram * SHARE:
        place, correction, known = "GPU", 1.0, None
        speed, room = machine.gpus[0].speed, machine.free_vram
    elif room is not None and memory > room * SHARE:
        place, missing = "does not fit", memory - int(room * SHARE)
    disk = machine.free_disk if candidate.local is None else None
    if disk is not None and candidate.facts.file_bytes > disk:
        place, missing, off_disk = "does not fit", candidate.facts.file_bytes - disk, True
    drafter = drafts.found.get(candidate.drafter)
    if drafter is not None and room is not None:
        both = memory + estimate.needed_memory(drafter.facts, *window)
        drafter = drafter if missing or both <= room * SHARE else None
    seconds = estimate.seconds_per_token(candidate.facts, speed) if speed is not None else None
    dense = drafted = None
    if speed is not None and seconds:
        dense = 1.0 / (seconds * correction)
        drafted = known.dense_rate if known is not None else dense
        drafted *= drafts.speedup(candidate, drafter, speed, seconds)
    measured = known.dense_rate if known is not None else None
    tight = place == "memory" and room is not None and memory > room * COMFORT
    return _Fit(candidate, place, missing, off_disk, memory, tight, drafter, dense, drafted, measured)


def _recommendation(fit: _Fit, best: Mapping[Purpose, _Fit]) -> Recommendation:
    candidate, drafter = fit.candidate, fit.drafter
    return Recommendation(
        name=candidate.name,
        why=_why(fit, best),
        best_for=tuple(purpose for purpose, one in best.items() if one is fit),
        good_for=candidate.good_for,
        place=fit.place,
        missing_bytes=fit.missing,
        file_bytes=candidate.facts.file_bytes,
        memory_bytes=fit.memory,
        expected=fit.dense,
        expected_with_drafts=fit.drafted,
        measured=fit.measured,
        licence=candidate.licence,
        parameters=candidate.parameters,
        notes=candidate.notes,
        here=candidate.local is not None,
        where=candidate.local.where if candidate.local is not None else "",
        drafter=drafter.name if drafter is not None else "",
        drafter_here=drafter is not None and drafter.local is not None,
        exact=candidate.facts.exact,
        commands=_commands(fit),
    )


def _why(fit: _Fit, best: Mapping[Purpose, _Fit]) -> str:
    """One sentence, without a full stop."""
    slow = "slower than one reads" if not fit.candidate.thinks else "slow for a model that thinks before it answers"
    if fit.off_disk:
        return f"its file takes {size(fit.candidate.facts.file_bytes)}, {size(fit.missing)} more than the disk has free"
    if fit.place == "does not fit":
        return f"needs {size(fit.memory)} of memory, {size(fit.missing)} more than is free"
    if purposes := [purpose for purpose, one in best.items() if one is fit]:
        words = " and ".join([", ".join(purposes[:-1]), purposes[-1]] if purposes[1:] else purposes)
        room = " and leaves memory for other programs" if fit.place == "memory" and not fit.is_tight else ""
        but = [slow if fit.is_slow else "", "it leaves other programs little memory" if fit.is_tight else ""]
        though = " and ".join(filter(None, but))
        return f"the best for {words} that fits here{room}" + (f", though {though}" if though else "")
    if fit.is_slow:
        return f"fits, but is {slow}"
    if fit.is_tight:
        return "fits, but leaves other programs little memory"
    purpose = next((purpose for purpose in fit.candidate.good_for if purpose in best), None)
    if purpose is None:
        return "fits"
    other = best[purpose]  # type: ignore[index]  # checked by the line before
    return f"fits; {other.candidate.name} is better for {purpose}"


def _commands(fit: _Fit) -> tuple[str, ...]:
    """What fetches it, with its drafter, and starts it."""
    candidate, drafter = fit.candidate, fit.drafter
    wanted = [one for one in (candidate, drafter) if one is not None and one.local is None and not one.embedded]
    start = "specee-chat" if candidate.embedded else f"specee-chat --model {shlex.quote(candidate.name)}"
    if fit.place == "GPU":
        start += f" --gpu-layers {candidate.facts.layers + 1}"
    return (*(f"specee-chat models pull {shlex.quote(one.name)}" for one in wanted), start)
