"""What a new user sees above the prompt: models that this machine can run well, each with the key that fetches it.

It is shown while no model but the embedded one is here, and goes at the first key or message, for ever.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.message import Message

from specee.app import error_log, model_catalogue
from specee.app.formatting import size, visible
from specee.app.model_catalogue import EMBEDDED
from specee.app.model_survey import ModelSurvey
from specee.app.paths import Paths
from specee.app.settings import KVType
from specee.app.tui.lines import Lines
from specee.models import embedded, file_hash, hub, local_file
from specee.models.resolve import EMBEDDED as EMBEDDED_NAME

KEYS = ("f5", "f6", "f7")
"""Each fetches one model."""
KEPT = (*KEYS, "ctrl+c", "ctrl+q", "ctrl+z")
"""Keys that do not hide it: who leaves sees it at the next start."""
TITLE = "Models that suit this PC; meanwhile you can chat with the small one that is here:"
HINT = "These keys fetch one with its drafter, then it answers; the chat stays. /model shows all, other keys hide this."
SHORT_TITLE = "A key fetches a model for this PC:"
"""Instead of both where there are few lines."""
OTHERS = 8
"""Lines that the prompt, the status and a bit of the chat need."""


@dataclass(frozen=True)
class Suggestion:
    """A model to fetch: what it is the best for, its size with that of its drafter, and what can be expected of it."""

    name: str
    best_for: str
    n_bytes: int
    rate: float | None
    licence: str


class FirstStart(Lines):
    """The suggestions, a line each."""

    DEFAULT_CSS = """
    FirstStart { height: auto; max-height: 8; padding: 0 1; display: none; border-left: thick $accent; }
    """

    class Ready(Message):
        """There is something to suggest."""

        def __init__(self, suggestions: Sequence[Suggestion]) -> None:
            super().__init__()
            self.suggestions = suggestions

    class RateKnown(Message):
        """How many tokens a second the embedded model is expected to write."""

        def __init__(self, rate: float) -> None:
            super().__init__()
            self.rate = rate

    def __init__(self, folders: Paths, window: int, kv_type: KVType) -> None:
        super().__init__()
        self._folders, self._window, self._kv_type = folders, window, kv_type
        self._survey: ModelSurvey | None = None
        self._told = threading.Event()
        self.suggestions: Sequence[Suggestion] = ()

    # ---- whether there is something to show, in threads ------------------------------------------------------------

    def look(self) -> None:
        """Finds out, beside everything else, what to suggest; then Ready is posted."""
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        try:
            if _seen_file(self._folders).exists() or hub.is_offline():
                return
            if _others_are_here(self._folders):
                _remember(self._folders)
                return
            self._survey = ModelSurvey(self._folders, self._surveyed, window=self._window, kv_type=self._kv_type)
            self._survey.start()
        except Exception as error:  # it is not worth a line on the screen
            error_log.record(self._folders.logs, error)

    def _surveyed(self) -> None:
        survey = self._survey
        if survey is None or survey.searching or self._told.is_set():
            return
        own = survey.advice(EMBEDDED_NAME)
        if own is not None and own.expected_with_drafts:
            self.post_message(self.RateKnown(own.expected_with_drafts))
        found = suggestions(survey)
        if found:
            self._told.set()
            self.post_message(self.Ready(found))

    @property
    def n_lines(self) -> int:
        """Lines that it has on the screen; about, where they are long."""
        return len(self.suggestions) + 3 if self.display else 0

    # ---- the screen ------------------------------------------------------------------------------------------------

    def on_unmount(self) -> None:
        if self._survey is not None:
            self._survey.stop()

    def show(self, found: Sequence[Suggestion]) -> None:
        """Shows them."""
        self.suggestions = found[: len(KEYS)]
        self.app.set_class(True, "-first")
        self.draw()

    def hide(self) -> None:
        """Goes, until the next start if no model is here by then."""
        self.suggestions, self.display = (), False
        self.app.set_class(False, "-first")

    def dismiss(self) -> None:
        """Goes, and does not come back."""
        self.hide()
        threading.Thread(target=_remember, args=(self._folders,), daemon=True).start()

    def on_resize(self) -> None:
        self.draw()

    def draw(self) -> None:
        """As there is room for it: it must not push the prompt off the screen."""
        if not self.suggestions:
            return
        columns, room = max(1, self.app.size.width - 4), self.app.size.height - OTHERS
        n_lines, is_short = len(self.suggestions), False
        if n_lines + ceil(len(TITLE) / columns) + ceil(len(HINT) / columns) > room:
            n_lines, is_short = n_lines + ceil(len(SHORT_TITLE) / columns), True
        self.display = not is_short or n_lines <= room
        purposes = max(cell_len(one.best_for) for one in self.suggestions)
        names = max(cell_len(one.name) for one in self.suggestions)
        width = self.content_size.width
        if not width:  # it is drawn once it has its place
            return
        lines = [Content.styled(SHORT_TITLE if is_short else TITLE, "bold")]
        for at, (key, one) in enumerate(zip(KEYS, self.suggestions, strict=False)):
            rate = "" if one.rate is None else f"  {one.rate:.{0 if one.rate >= 10 else 1}f} tokens/s"
            text = f" {set_cell_size(one.best_for, purposes)}  {set_cell_size(one.name, names)}  {size(one.n_bytes):>8}"
            text = visible(f"{text}{rate}  {one.licence}")
            line = Content.from_markup(f"[@click=app.fetch_suggested({at})][b]{key.upper()}[/b]$text[/]", text=text)
            lines.append(line.truncate(width, ellipsis=True))
        if not is_short:
            lines.append(Content.styled(HINT, "$text-muted"))
        self.show_lines(lines)


def suggestions(survey: ModelSurvey) -> list[Suggestion]:
    """The models that are the best for something here, those for chats first; none before that is known."""
    found = []
    for one in survey.models:
        advice = one.advice
        if advice is None or not advice.best_for or advice.here or not advice.fits:
            continue
        drafter = survey.advice(advice.drafter) if advice.drafter and not advice.drafter_here else None
        n_bytes = advice.file_bytes + (drafter.file_bytes if drafter is not None else 0)
        purposes = ", ".join(advice.best_for)
        found.append(Suggestion(advice.name, purposes, n_bytes, advice.expected_with_drafts, advice.licence))
    return sorted(found, key=lambda one: [purpose not in one.best_for for purpose in ("chat", "code", "small")])


def _others_are_here(folders: Paths) -> bool:
    """Whether any model but the embedded one is here, or is being fetched."""
    if any(model.where not in ("", EMBEDDED) for model in model_catalogue.models(folders)):
        return True
    ours = embedded.path()
    return any(ours is None or not path.samefile(ours) for path in file_hash.known_files(folders.cache))


def _seen_file(folders: Paths) -> Path:
    return folders.data / "first-start"


def _remember(folders: Paths) -> None:
    """It has been shown. Where that cannot be kept, it is shown again."""
    with suppress(OSError):
        local_file.make_folder(folders.data)
        os.close(local_file.open_private(_seen_file(folders)))
