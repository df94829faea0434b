"""The lines of the model picker: which models they show, in which group, and what they say."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from textual.content import Content

from specee.app.formatting import size, visible
from specee.app.model_catalogue import COPY, FILE, PARTLY
from specee.app.model_survey import SurveyedModel

HERE, RECOMMENDED, KNOWN = "Here", "Recommended for this PC", "Known, to be fetched"
GROUPS = (HERE, RECOMMENDED, KNOWN)
_WHERE = {COPY: "copy made by models optimize", FILE: "file"}
NAME_CELLS = 34
SIZE_CELLS, RATE_CELLS = 9, 12
LEAST_TAIL = 8  # cells; a shorter one says nothing


@dataclass(frozen=True)
class ModelRow:
    """A model as a line of the picker."""

    surveyed: SurveyedModel
    group: str
    in_use: bool = False

    @property
    def name(self) -> str:
        return self.surveyed.model.name

    @property
    def here(self) -> bool:
        return self.surveyed.model.here

    @property
    def shown_name(self) -> str:
        """A file's own name instead of its path; nothing in it steers the terminal."""
        model = self.surveyed.model
        name = model.paths[0].name if model.here and model.where in (FILE, COPY) else model.name
        return " ".join(visible(name).split())

    @property
    def does_not_fit(self) -> bool:
        """Whether its memory is known not to suffice."""
        advice = self.surveyed.advice
        return advice is not None and not advice.fits

    @property
    def best_for(self) -> str:
        advice = self.surveyed.advice
        return f"best for {' and '.join(advice.best_for)}" if advice is not None and advice.best_for else ""

    @property
    def rate(self) -> str:
        """Tokens a second to expect, or that were measured."""
        advice = self.surveyed.advice
        expected = advice.expected_with_drafts if advice is not None and advice.fits else None
        return "" if expected is None else f"{expected:.{0 if expected >= 10 else 1}f} tokens/s"

    def line(self, width: int, name_cells: int) -> Content:
        """The line, of at most `width` cells; what is at its end is cut first."""
        mark = ">" if self.in_use else "!" if self.does_not_fit or self.surveyed.problem else " "
        n_bytes = size(self.surveyed.n_bytes) if self.surveyed.n_bytes else ""
        head = f"{mark} {_fitted(self.shown_name, name_cells)} {n_bytes:>{SIZE_CELLS}} {self.rate:>{RATE_CELLS}}"
        room = width - cell_len(head) - 2
        tail = f"  {set_cell_size(self._tail(), room).rstrip()}" if room >= LEAST_TAIL else ""
        style = "$text-muted" if mark == "!" else ""
        return Content.assemble((set_cell_size(head, min(width, cell_len(head))), style), (tail, "$text-muted"))

    def _tail(self) -> str:
        model, advice = self.surveyed.model, self.surveyed.advice
        what = [self.surveyed.problem.partition(":")[0]]
        if self.does_not_fit and advice is not None:
            what.append(f"needs {size(advice.memory_bytes)} of memory")
        if model.where == PARTLY:
            what.append(f"{size(model.n_bytes)} of it are here")
        what += [self.best_for, self.licence, model.entry.notes if model.entry is not None else ""]
        if model.here and model.where in (FILE, COPY):
            what.append(str(model.paths[0].parent))
        return " ".join(visible(" · ".join(part for part in what if part)).split())

    @property
    def licence(self) -> str:
        model, advice = self.surveyed.model, self.surveyed.advice
        return advice.licence if advice is not None else model.entry.licence if model.entry is not None else ""

    def summary(self, free: int | None) -> list[str]:
        """A few lines about the model; `free`: bytes of memory that are free, None where that is not known."""
        model, advice = self.surveyed.model, self.surveyed.advice
        if self.surveyed.problem:
            return [visible(self.surveyed.problem)]
        first = [self.shown_name, _WHERE.get(model.where, "")]
        if model.entry is not None:
            first += [f"{model.entry.parameters} parameters", model.entry.notes]
        first += [self.licence]
        lines = [visible(" · ".join(part for part in first if part))]
        if advice is not None:
            speed = f"about {self.rate}; " if self.rate else ""
            lacks = ", which do not fit" if self.does_not_fit else ""
            memory = f"needs {size(advice.memory_bytes)} of memory{lacks}"
            of = "" if free is None else f" ({size(free)} free)"
            where = "here" if advice.drafter_here else "not here"
            drafter = f"; {advice.drafter} drafts for it ({where})" if advice.drafter else ""
            lines.append(f"{speed}{memory}{of}{drafter}")
        elif not self.surveyed.read:
            lines.append("its header is being read")
        return lines

    @property
    def search_text(self) -> str:
        """What the search looks into."""
        model, advice = self.surveyed.model, self.surveyed.advice
        parts = [self.shown_name, model.name, self.best_for, self.licence, model.where, *map(str, model.paths[:1])]
        if advice is not None:
            parts += [*advice.good_for, advice.parameters, advice.notes]
        if (entry := model.entry) is not None:
            parts += [*entry.other_names, entry.repo, entry.file, entry.parameters, entry.notes, entry.licence]
            parts += entry.good_for
        return _normal(" ".join(parts))


def rows(models: Sequence[SurveyedModel], in_use: tuple[str, str], search: str = "") -> list[ModelRow]:
    """Those in which all words of `search` occur, by groups. `in_use`: name and path of the model that answers."""
    words = _normal(search).split()
    found = [row for row in (_row(model, in_use) for model in models) if all(w in row.search_text for w in words)]
    return sorted(found, key=lambda row: (GROUPS.index(row.group), not row.in_use))


def _row(surveyed: SurveyedModel, in_use: tuple[str, str]) -> ModelRow:
    name, path = in_use
    model, advice = surveyed.model, surveyed.advice
    here = [str(place) for place in (surveyed.place, *model.paths[:1]) if place is not None]
    answers = model.here and (name in (model.name, surveyed.argument) or path in here)
    if model.here:
        return ModelRow(surveyed, HERE, answers)
    return ModelRow(surveyed, RECOMMENDED if advice is not None and advice.best_for else KNOWN)


def name_cells(rows: Sequence[ModelRow], width: int) -> int:
    """How wide the column of names is."""
    longest = max((cell_len(row.shown_name) for row in rows), default=0)
    return max(8, min(longest, NAME_CELLS, width - SIZE_CELLS - RATE_CELLS - 4))


def _normal(text: str) -> str:
    """As texts are compared: without case and accents, and a colon in a name is as good as a hyphen."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.casefold().replace(":", "-")


def _fitted(name: str, cells: int) -> str:
    """Just so wide; of a longer name the middle is left out, since its end says which quantization it is."""
    if cell_len(name) <= cells:
        return set_cell_size(name, cells)
    tail = name[-(cells // 2) :]
    while cell_len(tail) > cells // 2:
        tail = tail[1:]
    return set_cell_size(f"{set_cell_size(name, cells - cell_len(tail) - 1)}…{tail}", cells)
