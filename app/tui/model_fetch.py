"""What the list of models fetches: a model with its drafter, after a question where there is something to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from specee.app.errors import AppError
from specee.app.formatting import size
from specee.app.model_survey import SurveyedModel
from specee.app.tui.model_rows import ModelRow
from specee.app.tui.question import Question
from specee.models import hub
from specee.models.source import Source

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp

OFFLINE = "--offline or HF_HUB_OFFLINE"


class ModelFetch:
    """`tell` shows a line; `started` is called when a download begins, with whether the model is to be used then."""

    def __init__(self, app: ChatApp, tell: Callable[[str], None], started: Callable[[bool], None]) -> None:
        self._app, self._tell, self._started = app, tell, started

    @property
    def offline(self) -> bool:
        """Whether nothing can be fetched."""
        return self._app.session.offline or hub.is_offline()

    def model(self, row: ModelRow, drafter: SurveyedModel | None, *, then_use: bool) -> None:
        """Fetches a model. `drafter`: the one that belongs to it, if that is not here."""
        if self._refuses(row.name):
            return
        advice, entry = row.surveyed.advice, row.surveyed.model.entry
        parts = [f"Fetch {row.shown_name}", size(row.surveyed.n_bytes) if row.surveyed.n_bytes else ""]
        parts += [f"from {entry.repo}" if entry is not None else "", f"licence: {row.licence}" if row.licence else ""]
        if drafter is not None:
            parts.append(f"and {drafter.model.name} ({size(drafter.n_bytes)}), which drafts for it")
        text = f"{', '.join(part for part in parts if part)}?"
        if row.does_not_fit and advice is not None:
            text += f" It needs {size(advice.memory_bytes)} of memory, which are not free now."
        elif not then_use:
            self._start(row.name, then_use=False)
            return
        self._ask(row.name, text, then_use=then_use)

    def drafter_of(self, row: ModelRow) -> None:
        """Fetches what drafts for a model that is here."""
        advice = row.surveyed.advice
        if advice is None or not advice.drafter or advice.drafter_here:
            self._tell(f"{row.shown_name} is here already")
        elif not self._refuses(advice.drafter):
            self._start(advice.drafter, then_use=False)

    def repository(self, name: str, found: Source) -> None:
        """Fetches a model that the user named by its repository."""
        if not self._refuses(name):
            self._ask(name, f"Fetch {name} ({found.repo} on {hub.page(found.repo)})?", then_use=True)

    def _refuses(self, name: str) -> bool:
        """Whether it cannot be fetched now; then it says so."""
        if self.offline:
            self._tell(f"{name} is not here, and {OFFLINE} forbids fetching it")
        return self.offline

    def _ask(self, name: str, text: str, *, then_use: bool) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._start(name, then_use=then_use)

        self._app.push_screen(Question(text, "fetch it, then use it" if then_use else "fetch it"), answered)

    def _start(self, name: str, *, then_use: bool) -> None:
        try:
            self._app.controller.start_pull(name, drafter=True, then_use=then_use)
        except AppError as error:  # another one is being fetched
            self._tell(error.line)
        else:
            self._started(then_use)
