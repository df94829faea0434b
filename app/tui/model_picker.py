"""The list of models: what is here, what suits this machine, what else is known. One can be chosen, looked into,
fetched and removed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static

from specee.app import error_log, paths, removal
from specee.app.chat import memory_check
from specee.app.errors import AppError
from specee.app.formatting import size, visible
from specee.app.model_survey import ModelSurvey
from specee.app.tui import model_rows
from specee.app.tui.model_details import ModelDetails
from specee.app.tui.model_fetch import OFFLINE, ModelFetch
from specee.app.tui.model_rows import ModelRow
from specee.app.tui.question import Question
from specee.app.tui.search_list import LEAST_WIDTH, SearchList
from specee.app.tui.wrapping import Block, wrap
from specee.models import source

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp

T = TypeVar("T")
WIDE = 120  # columns from which details stand beside the list
SUMMARY_LINES = 3
SEEN_SECONDS = 0.5  # until a person has seen that a line moved


class ModelPicker(SearchList[ModelRow]):
    """Letters search, arrows move, and the keys at the bottom do what they say; a click chooses a line, another one on
    the same line uses it."""

    DEFAULT_CSS = """
    ModelPicker Horizontal { height: 1fr; }
    ModelPicker ModelDetails { width: 1fr; height: 1fr; display: none; }
    ModelPicker.-inside ModelDetails { display: block; }
    ModelPicker.-inside OptionList { display: none; }
    ModelPicker.-inside.-wide OptionList { display: block; }
    ModelPicker #summary { height: auto; max-height: 4; padding: 0 1; border-top: solid $primary-muted; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - an instance variable in Textual
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "use", priority=True),
        Binding("tab,shift+tab", "look", "inside", priority=True),
        Binding("ctrl+f", "fetch", "fetch", priority=True),
        Binding("delete", "remove", "remove", priority=True),
        Binding("escape,ctrl+c", "leave", "leave", priority=True),
        Binding("up,ctrl+p", "move('cursor_up')", "line before", show=False, priority=True),
        Binding("down,ctrl+n", "move('cursor_down')", "next line", show=False, priority=True),
        Binding("pageup", "page(-1)", "scroll up", show=False, priority=True),
        Binding("pagedown", "page(1)", "scroll down", show=False, priority=True),
    ]
    app: ChatApp

    class Changed(Message):
        """There is more to tell of the models. One such message in the queue is enough."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, ModelPicker.Changed)

    class Finished(Message):
        """What was done in the background is done; `then` goes on with it."""

        def __init__(self, then: Callable[[], None]) -> None:
            super().__init__()
            self.then = then

    def __init__(self) -> None:
        self._options = ModelOptions()
        super().__init__("Search: a name, code, a licence", self._options)
        self._summary = Static("", id="summary", markup=False)
        self._wanted: str | None = None  # the model that the user chose, whose line stays so while lines come and go
        self._in_use = ""  # the name of the model that answers
        self._told = ""  # what stands in place of the summary until another line is highlighted
        self._survey: ModelSurvey | None = None

    def compose(self) -> ComposeResult:
        session = self.app.session
        self._fetch = ModelFetch(self.app, self._tell, self._fetch_begun)
        self._details = ModelDetails(self._folders, session.window, session.kv_type)
        yield self._search
        with Horizontal():
            yield self._list
            yield self._details
        yield self._summary
        yield self._keys

    def on_mount(self) -> None:
        super().on_mount()
        self._look_around()

    def on_unmount(self) -> None:
        if self._survey is not None:
            self._survey.stop()

    @property
    def _folders(self) -> paths.Paths:
        return self.app.session.folders

    def _look_around(self) -> None:
        """Begins to look at all models, as they are now."""
        former, session = self._survey, self.app.session
        if former is not None:
            former.stop()
        self._in_use = session.model  # asks the disk
        loaded = Path(session.info.path) if session.info is not None else None

        def changed() -> None:
            self.post_message(self.Changed())

        self._survey = ModelSurvey(
            self._folders, changed, loaded=loaded, window=session.window, kv_type=session.kv_type, former=former
        )
        self._survey.start()
        self._show_rows()

    def on_model_picker_changed(self, message: Changed) -> None:
        message.stop()
        self._show_rows()

    # ---- what it shows ---------------------------------------------------------------------------------------------

    def _show_rows(self) -> None:
        """Shows the lines again, and keeps the one that is highlighted."""
        if self._survey is None:
            return
        session, models = self.app.session, self._survey.models
        found = model_rows.rows(models, (self._in_use, session.info.path if session.info else ""), self._search.value)
        self.app.known_models.update({one.argument: "is here" for one in models if one.model.entry is None})
        cells = model_rows.name_cells(found, self._width)
        lines: list[tuple[ModelRow | None, Content]] = []
        for row in found:
            if not any(other is not None and other.group == row.group for other, _ in lines):
                heading = (
                    row.group if row.here or not self._fetch.offline else f"{row.group}: needs the network ({OFFLINE})"
                )
                lines.append((None, Content.styled(heading, "bold $accent")))
            lines.append((row, row.line(self._width, cells)))
        before, place = self._row, self._options.highlighted
        with self._options.prevent(OptionList.OptionHighlighted):  # what the user did not choose gives way
            self._show(lines, lambda row: row.name == self._wanted)
        if place not in (None, self._options.highlighted):
            self._options.moved = time.monotonic()
        now = self._row
        if self.has_class("-inside") and now is not None and (before is None or now.name != before.name):
            self._details.show(now.surveyed)
        self._show_summary()

    def _show_summary(self) -> None:
        width = max(LEAST_WIDTH, self.size.width - 2)
        row, pull = self._row, self.app.controller.pull
        if self._told:
            lines = [visible(self._told)]
        elif row is None:
            searching = self._survey is not None and self._survey.searching
            said = "looking for models" if searching else "no model is called that"
            lines = [f"{said}; Enter takes what is written as a file, or as hf:owner/repo"]
        else:
            machine = self._survey.machine if self._survey is not None else None
            lines = row.summary(machine.free_ram if machine is not None else None)
        wrapped = [line.text.plain for text in lines for line in wrap(Block(Content(text)), width)][:SUMMARY_LINES]
        if pull is not None:
            wrapped = [*wrapped[: SUMMARY_LINES - 1], f"{visible(pull.activity)}; Ctrl+F stops it"]
        self._summary.update("\n".join(wrapped))

    def _tell(self, text: str) -> None:
        self._told = text
        self._show_summary()

    def pull_changed(self) -> None:
        """A download has come further."""
        self._show_summary()

    def pull_ended(self, error: AppError | None) -> None:
        """What is here may be another list now."""
        self._look_around()
        if error is not None:
            self._tell(error.line)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._wanted, self._told = None, ""
        self._show_rows()

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        row = self._row
        if row is not None and row.name != self._wanted:
            self._wanted, self._told = row.name, ""
            if self.has_class("-inside"):
                self._details.show(row.surveyed)
        self._show_summary()

    # ---- what the user does ----------------------------------------------------------------------------------------

    def action_leave(self) -> None:
        if self.has_class("-inside"):
            self.remove_class("-inside")
            self.call_after_refresh(self._show_rows)
        else:
            self.dismiss()

    def action_page(self, direction: int) -> None:
        if self.has_class("-inside"):
            self._details.scroll_relative(y=direction * max(1, self._details.size.height - 1), animate=False)
        else:
            self.action_move("page_up" if direction < 0 else "page_down")

    def action_look(self) -> None:
        """Shows what the model is made of, or the list again."""
        row = self._row
        self.toggle_class("-inside")
        if self.has_class("-inside"):
            self._wanted = row.name if row is not None else None
            self._details.show(row.surveyed if row is not None else None)
        self.call_after_refresh(self._show_rows)

    def action_choose(self) -> None:
        """The model answers from now on; one that is not here is fetched first, after a question."""
        row = self._row
        if row is None:
            self._take_as_written(self._search.value.strip())
        elif row.in_use:
            self.dismiss()
        elif row.surveyed.problem:
            self._tell(row.surveyed.problem)
        elif row.here:
            self._use(row)
        else:
            self._fetch_model(row, then_use=True)

    def _take_as_written(self, text: str) -> None:
        """A file or a repository that no line is about."""
        if not text:
            return
        if (found := source.parse(text)) is not None:
            self._fetch.repository(text, found)
        else:
            self.app.controller.switch_model(text)
            self.dismiss()

    def _use(self, row: ModelRow) -> None:
        advice = row.surveyed.advice
        if advice is None or not row.does_not_fit:
            self._switch(row)
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._switch(row, agreed=True)

        text = memory_check.question(row.shown_name, advice.memory_bytes, advice.missing_bytes)
        self.app.push_screen(Question(text, "load it"), answered)

    def _switch(self, row: ModelRow, *, agreed: bool = False) -> None:
        self.app.controller.switch_model(row.surveyed.argument, agreed=agreed)
        self.dismiss()

    def action_fetch(self) -> None:
        """Fetches the model with its drafter, or the drafter of one that is here; stops what is being fetched."""
        row, pull = self._row, self.app.controller.pull
        if pull is not None:
            pull.stop()
        elif row is None:
            self._take_as_written(self._search.value.strip())
        elif row.here:
            self._fetch.drafter_of(row)
        else:
            self._fetch_model(row, then_use=False)

    def _fetch_model(self, row: ModelRow, *, then_use: bool) -> None:
        entry = row.surveyed.model.entry
        models = self._survey.models if self._survey is not None else []
        wanted = [one for one in models if entry is not None and one.model.name == entry.drafter and not one.model.here]
        self._fetch.model(row, wanted[0] if wanted else None, then_use=then_use)

    def _fetch_begun(self, then_use: bool) -> None:
        if then_use:
            self.dismiss()
        else:
            self._show_summary()

    def action_remove(self) -> None:
        """Deletes a model that was fetched, after a question."""
        row = self._row
        if row is None:
            return
        if row.in_use:
            self._tell(f"{row.shown_name} answers now; choose another model before you remove it")
            return
        self._in_background(lambda: removal.find(row.name), self._ask_to_remove)

    def _ask_to_remove(self, doomed: removal.Removal) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._in_background(doomed.run, removed)

        def removed(freed: int) -> None:
            self._look_around()
            self._tell(f"deleted {doomed.name}, {size(freed)}")

        self.app.push_screen(Question(doomed.question, "delete it"), answered)

    def _in_background(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Does what may wait for a disk; `then` gets what it returns."""

        def run() -> None:
            try:
                result = work()
            except Exception as error:
                told = error_log.told(error, self._folders.logs).line
                self.post_message(self.Finished(lambda: self._tell(told)))
            else:
                self.post_message(self.Finished(lambda: then(result)))

        threading.Thread(target=run, daemon=True).start()

    def on_model_picker_finished(self, message: Finished) -> None:
        message.stop()
        message.then()


class ModelOptions(OptionList, can_focus=False):
    """A click on the line that is highlighted chooses it; on another one it only goes there, and so does one on a line
    that has just come under the mouse."""

    moved = -math.inf  # when the highlighted line last went elsewhere because others came or went

    async def _on_click(self, event: events.Click) -> None:
        clicked = event.style.meta.get("option")
        if clicked == self.highlighted:
            if time.monotonic() - self.moved < SEEN_SECONDS:
                event.prevent_default()
                return
            await super()._on_click(event)
        elif clicked is not None and not self.get_option_at_index(clicked).disabled:
            self.highlighted = clicked
        event.prevent_default()
