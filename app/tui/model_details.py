"""What a model is made of, as `models show` tells it, for the model picker."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import count

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from specee.app import error_log
from specee.app.formatting import size, visible
from specee.app.model_survey import SurveyedModel
from specee.app.options import DEFAULT_KV_TYPE, LoadOptions
from specee.app.paths import Paths
from specee.app.settings import KVType
from specee.app.tui.wrapping import Block, wrap
from specee.models import hub

NAMES = 19  # cells, of the longest one and a space
SPACE = " "


class ModelDetails(VerticalScroll, can_focus=False):
    """Names and what belongs to them, in two columns. A file is read by a thread that nobody waits for."""

    DEFAULT_CSS = """
    ModelDetails { padding: 0 1; scrollbar-size-vertical: 1; }
    ModelDetails Static { height: auto; }
    """

    class Read(Message):
        """The details of a model are known, or why they are not."""

        def __init__(self, request: int, rows: Mapping[str, str]) -> None:
            super().__init__()
            self.request, self.rows = request, rows

    def __init__(self, folders: Paths, n_ctx: int | None, kv_type: KVType = DEFAULT_KV_TYPE) -> None:
        super().__init__()
        self._folders, self._n_ctx, self._kv_type = folders, n_ctx, kv_type
        self._text = Static("", markup=False)
        self._requests = count(1)
        self._request = 0
        self._rows: Mapping[str, str] = {}

    def compose(self) -> ComposeResult:
        yield self._text

    def show(self, surveyed: SurveyedModel | None) -> None:
        """Shows another model."""
        self._request = next(self._requests)
        if surveyed is None:
            self._show({})
        elif not surveyed.model.here:
            self._show(_of_registry(surveyed))
        else:
            self._show({"name": surveyed.model.name, SPACE: "its file is being read"})
            request, argument = self._request, surveyed.argument
            threading.Thread(target=lambda: self._read(request, argument), daemon=True).start()

    def _read(self, request: int, argument: str) -> None:
        from specee.app.cli import model_details  # loads much

        try:
            load = LoadOptions(n_ctx=self._n_ctx, kv_type=self._kv_type)
            rows = model_details.rows(model_details.facts(argument, self._folders, load))
        except Exception as error:
            rows = {"name": argument, SPACE: error_log.told(error, self._folders.logs).line}
        self.post_message(self.Read(request, rows))

    def on_model_details_read(self, message: Read) -> None:
        message.stop()
        if message.request == self._request:  # not if another model is wanted by now
            self._show(message.rows)

    def _show(self, rows: Mapping[str, str]) -> None:
        self._rows = rows
        self._draw()
        self.scroll_home(animate=False)

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        width, lines = self.scrollable_content_region.width - 2, []
        indent = Content(" " * NAMES)
        for name, words in self._rows.items():
            first = Content.styled(f"{visible(name):{NAMES}}", "$text-muted")
            for line in wrap(Block(Content(visible(words)), first, indent), max(NAMES + 8, width)):
                lines.append(line.prefix + line.text)
        self._text.update(Content("\n").join(lines))


def _of_registry(surveyed: SurveyedModel) -> dict[str, str]:
    """What is known of one that is not here."""
    entry, advice = surveyed.model.entry, surveyed.advice
    if entry is None:
        return {}
    rate = advice.expected_with_drafts if advice is not None else None
    rows = {
        "name": entry.name,
        "also called": ", ".join(entry.other_names),
        "licence": entry.licence,
        "from": hub.page(entry.repo),
        "file": entry.file,
        "size": f"{size(advice.file_bytes)}, {entry.parameters} parameters" if advice is not None else entry.parameters,
        "layers": str(entry.layers),
        "trained window": f"{entry.context} tokens",
        "memory": "" if advice is None else f"{size(advice.memory_bytes)} are needed",
        "speed": "" if advice is None or rate is None else f"about {rate:.0f} tokens/s",
        "drafter": entry.drafter,
        "notes": entry.notes,
        SPACE: "its template and the types of its weights are known once it is here",
    }
    return {name: words for name, words in rows.items() if words}
