"""The chat screen: its widgets, and what keys and messages do. The session has a thread of its own; only handlers here
touch widgets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult, SuspendNotSupported, SystemCommand
from textual.binding import BindingType
from textual.driver import Driver
from textual.events import Event, Key, Paste
from textual.screen import Screen
from textual.timer import Timer

from specee.app import clipboard, error_log
from specee.app.chat.advice import how_to_make_room
from specee.app.chat.commands import as_typed
from specee.app.chat.context_window import NEARLY_FULL
from specee.app.chat.saved_texts import SavedTexts
from specee.app.chat.session import Session
from specee.app.editor import edit
from specee.app.errors import OK, AppError
from specee.app.formatting import visible
from specee.app.options import ChatOptions
from specee.app.tui import first_start, garbage_collection, job_control, keys, markdown, message_actions, palette
from specee.app.tui.ascii_filter import AsciiFilter
from specee.app.tui.boundary import BoundedApp
from specee.app.tui.chat_controller import ChatController
from specee.app.tui.commands import Commands
from specee.app.tui.conversation import Conversation
from specee.app.tui.depth_panel import DepthPanel
from specee.app.tui.draft import Copy
from specee.app.tui.drafters import colour_variables
from specee.app.tui.entries import Notice
from specee.app.tui.event_display import EventDisplay
from specee.app.tui.first_start import FirstStart
from specee.app.tui.key_map import KeyMap
from specee.app.tui.model_picker import ModelPicker
from specee.app.tui.model_pull import PullChanged, PullEnded
from specee.app.tui.prompt_input import PromptInput, Suggestions
from specee.app.tui.session_thread import EventsReady, Job, JobEnded, SessionThread
from specee.app.tui.settings_screen import SettingsScreen
from specee.app.tui.sidebar import Sidebar
from specee.app.tui.status import Status
from specee.app.tui.text_list import TextList
from specee.app.tui.token_choice import TokenChoice
from specee.app.tui.views.base import TokenChosen
from specee.app.tui.welcome import QUESTIONS, Welcome
from specee.models import registry
from specee.models.resolve import EMBEDDED

FLUSH_SECONDS = 0.125
IDLE_SECONDS = 1.0
COPY_SECONDS = 1.0
"""So much of what was typed may be lost when the program is killed."""
THRESHOLD_STEP = 0.05
FIRST_THRESHOLD = 0.7  # from which brackets change it while the calibrated one is in use


class ChatApp(BoundedApp):
    """Chats at the side, conversation, a view of the tokens, figures, prompt."""

    TITLE = "specee-chat"
    CSS = """
    .-wide Sidebar, Sidebar.-shown { display: block; }
    Sidebar.-hidden { display: none; }
    ToastRack { margin-bottom: 4; }  /* above a prompt of one line */
    .-first DepthPanel, .-welcome DepthPanel { display: none; }
    .-short DepthView, .-short Columns, .-short TokenColours { height: 4; }
    .-short ThresholdView { height: 7; }
    .-low DepthPanel { display: none; }  /* the prompt and the answer come first */
    .-low Status { max-height: 1; }
    .-low PromptInput { max-height: 4; }
    .-low Suggestions { max-height: 2; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012 - an instance variable in Textual
    VERTICAL_BREAKPOINTS = [(0, "-low"), (14, "-short"), (24, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = keys.BINDINGS

    def __init__(
        self,
        session: Session,
        options: ChatOptions,
        personas: Mapping[str, str] | None = None,
        notice: str | None = None,
        *,
        first_start: bool = False,
        ascii_filter: AsciiFilter | None = None,
        unsent: str = "",
        copy: Copy | None = None,
    ) -> None:
        """`notice`: what the user should know of the chat that goes on. `first_start`: whether to suggest models while
        no other than the embedded one is here. `ascii_filter`: for a terminal that cannot show Unicode. `unsent`: what
        stands in the prompt; `copy` of it."""
        super().__init__(*filter(None, [ascii_filter]))
        markdown.Formulas.in_unicode = ascii_filter is None
        self._notice, self._unsent, self._draft = notice, unsent, copy
        self.session, self.options = session, options
        self.texts = SavedTexts(session.folders.config, personas or {})
        # kept here, not queried: while the app closes, a job that ends may still ask for a widget that is gone
        self.conversation, self.panel, self.status = Conversation(), DepthPanel(), Status()
        self._token = TokenChoice(self.panel, self.conversation)
        self.commands = Commands(self)
        self.prompt = PromptInput(self.commands.completions)
        self._sidebar, self._suggestions = Sidebar(session.store), Suggestions()
        self._first_start = FirstStart(session.folders, session.window, session.kv_type)
        self._welcome, self._welcomes = Welcome(lambda: self._first_start.n_lines), first_start and not session.branch
        self._suggests = first_start and not session.branch and session.model == EMBEDDED and not session.offline
        self._thread = SessionThread(self, session.logs)
        self.event_display = EventDisplay(self)
        self.controller = ChatController(self, self._thread)
        self.known_models = {name: entry.notes for name, entry in registry.entries().items()}
        """What `/model` takes, as far as it is known, each with a few words about it."""
        self._timer: Timer | None = None
        self._cursor_blinks = True

    def get_driver_class(self) -> type[Driver]:
        kind = super().get_driver_class()
        if kind.__name__ != "LinuxDriver":  # on Windows, or in a test
            return kind
        from specee.app.tui.unix_driver import UnixDriver

        return UnixDriver

    @property
    def busy(self) -> bool:
        """Whether the session loads or answers."""
        return self._thread.busy

    def on_resize(self) -> None:
        self.call_later(self._first_start.draw)  # they have their new size then
        self.call_later(self._welcome.draw)

    def compose(self) -> ComposeResult:
        # no containers: Textual draws each again, under everything, whenever something changes
        yield self._sidebar
        yield self.conversation
        yield self._welcome
        yield self._first_start
        yield self.panel
        yield self.status
        yield self._suggestions
        yield self.prompt

    def get_css_variables(self) -> dict[str, str]:
        variables = super().get_css_variables()
        self.theme_variables = {**variables, **colour_variables(variables)}
        return self.theme_variables

    def on_mount(self) -> None:
        self.session.store.hurry_here()
        self.prompt.focus()
        self.app_resume_signal.subscribe(self, self._draw_again)
        self._timer = self.set_interval(FLUSH_SECONDS, self.tick, pause=True)
        self.show_chat()
        self.show_notice(keys.HINTS)
        if self._notice is not None:
            self.show_notice(self._notice, error=True)
        if self._welcomes:
            chats = self.session.store.chats(2)
            self._welcome.begin(chats)
            self.prompt.tries = () if chats else QUESTIONS
        if self._unsent:
            self.prompt.write(self._unsent)
            self.show_notice("the prompt has what was not sent when you left")
        if self._draft is not None:
            self.set_interval(COPY_SECONDS, self._copy_prompt)
        self.controller.load()

    def _copy_prompt(self) -> None:
        if self._draft is not None and self._is_up:
            self._draft.update("" if (text := self.controller.unsent) in QUESTIONS else text)

    async def on_unmount(self) -> None:
        # its thread must end before the event loop can
        self.controller.close()
        await asyncio.to_thread(self.session.close)

    # ---- the session's thread and its messages -----------------------------------------------------------------------

    def run_job(self, job: Job) -> None:
        """Runs a job in the session's thread; one at a time."""
        self._thread.start(job)
        self._cursor_blinks = self.prompt.cursor_blink
        self.prompt.cursor_blink = False  # each blink draws everything beside it again
        if self._timer is not None:
            self._timer.resume()

    @property
    def _is_up(self) -> bool:
        """Whether there is a screen to show things on; messages and ticks still come while the app closes."""
        return self.is_running and self.conversation.is_attached

    def _handle_events(self) -> bool:
        """Handles the events that have come; False when there is no screen any more."""
        if not self._is_up:
            return False
        for event in self._thread.buffer.drain():
            self.event_display.handle(event)
        return True

    def tick(self) -> None:
        """A few times a second while a job runs: shows what has come."""
        if self._handle_events():
            self.event_display.tick()

    def on_events_ready(self, message: EventsReady) -> None:
        if self._handle_events():
            self.event_display.write()
            self.event_display.refresh()

    def on_job_ended(self, message: JobEnded) -> None:
        self._thread.busy = False
        if not self._handle_events():
            return
        self.event_display.write()
        branch, race = self.session.branch, self.event_display.race
        self.conversation.close_answer(branch[-1] if branch and race is None else None)
        self.conversation.set_turns(branch)
        if race is not None:
            self.conversation.changed(race)
        self.prompt.cursor_blink = self._cursor_blinks
        if self._timer is not None:
            self._timer.pause()
        self.collect_garbage_soon()
        self.event_display.end()
        self.controller.job_ended(message.error)
        self._welcome.tell(self.session.info)
        if self._suggests and message.error is None:
            self._suggests = False
            self._first_start.look()  # now: while the model is loaded, nothing could be measured
        self.refresh_chats()
        self.event_display.refresh()

    def on_pull_changed(self, message: PullChanged) -> None:
        if self._is_up:
            self.event_display.refresh()
            if isinstance(self.screen, ModelPicker):
                self.screen.pull_changed()

    def on_pull_ended(self, message: PullEnded) -> None:
        if self._is_up:
            self.controller.pull_ended(message.error)
            if isinstance(self.screen, ModelPicker):
                self.screen.pull_ended(message.error)

    def on_conversation_acted(self, message: Conversation.Acted) -> None:
        message_actions.act(self, message.action, message.turn)

    def on_conversation_copy_code(self, message: Conversation.CopyCode) -> None:
        self.copy(message.code)

    def on_conversation_left(self, message: Conversation.Left) -> None:
        if self.conversation.cursor.selected is None:
            self.prompt.focus()

    def on_conversation_earlier_shown(self, message: Conversation.EarlierShown) -> None:
        self.collect_garbage_soon()

    def collect_garbage_soon(self) -> None:
        """Collects garbage while nothing happens, so that it does not stop the next answer."""
        self.set_timer(IDLE_SECONDS, self._collect_garbage)

    def _collect_garbage(self) -> None:
        if not self.busy and not self.is_headless:
            garbage_collection.collect_and_freeze()

    # ---- what the screen shows ---------------------------------------------------------------------------------------

    def show_notice(self, text: str, *, error: bool = False) -> None:
        """Adds a message from the program to the conversation."""
        if error:  # one that stands below the view would not be seen
            self.conversation.go_to_end()
        self.conversation.add(Notice(text, error=error))

    def show_error(self, error: Exception) -> None:
        """Adds an error to the conversation; one that we did not foresee goes to the log as well."""
        self.show_notice(error_log.told(error, self.session.logs).line, error=True)

    def warn_when_nearly_full(self) -> None:
        """Says so when the context window is nearly full."""
        info = self.session.info
        share = self.session.context_tokens / info.n_ctx if info is not None else 0.0
        if share >= NEARLY_FULL:
            self.show_notice(f"the context window is {share:.0%} full: {how_to_make_room(info)}")

    def show_chat(self) -> None:
        """Shows the branch in use, in place of everything."""
        self.controller.leave_editing()
        branch = self.session.branch
        if branch:
            self._hide_welcome()
        self.conversation.show_branch(branch)
        self.panel.gauge.restore(branch[-1] if branch and branch[-1].role == "assistant" else None)
        self.refresh_chats()
        self.event_display.refresh()

    def refresh_chats(self) -> None:
        """Reads the list of chats again."""
        chat = self.session.chat
        self._sidebar.refresh_chats(chat.id if chat is not None else None)

    async def set_view(self, name: str) -> None:
        """Shows another view."""
        await self.panel.set_view(name)
        self._view_changed()

    def _view_changed(self) -> None:
        self.prompt.turns_threshold = self.panel.is_threshold
        self.event_display.refresh()

    def write_prompt(self, text: str) -> None:
        """Writes a saved text into the prompt."""
        self.prompt.restore(as_typed(text))

    def switch_model(self, name: str) -> None:
        """Another model answers, once it is loaded."""
        self.controller.switch_model(name)

    def load_changed(self) -> None:
        """Loads what the session was told to."""
        self.controller.load_changed()

    def set_threshold(self, threshold: float | None) -> None:
        """Sets the threshold of the next answers."""
        self.options = replace(self.options, policy=replace(self.options.policy, threshold=threshold))
        self.event_display.refresh()

    def show_models(self) -> None:
        """Opens the list of models."""
        self.push_screen(ModelPicker())

    def show_settings(self) -> None:
        """Opens the form with the settings."""
        self.push_screen(SettingsScreen())

    def show_texts(self) -> None:
        """Opens the list of personas and saved prompts."""
        self.push_screen(TextList())

    def show_keys(self) -> None:
        """Opens the list of keys."""
        self.push_screen(KeyMap())

    def search(self, text: str) -> None:
        """Searches in all chats."""
        self._sidebar.search(text)

    def copy(self, text: str) -> None:
        """Copies a text to the clipboard, and says so. A terminal that it is pasted into is not steered by it."""
        text = visible(text)
        self.copy_to_clipboard(text)
        if not self.is_headless:
            clipboard.copy(text)
        self.notify(f"copied {len(text)} characters", timeout=2)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the palette offers: themes, and every command, with its key if it has one."""
        for command in super().get_system_commands(screen):
            if command.title in ("Theme", "Screenshot"):
                yield command
        if screen is self.screen_stack[0]:
            yield from palette.commands(self)

    # ---- the first start ---------------------------------------------------------------------------------------------

    def on_first_start_ready(self, message: FirstStart.Ready) -> None:
        if self._is_up and not (self.prompt.text or self.session.branch or self.busy):
            self._first_start.show(message.suggestions)
            self._welcome.draw()

    def action_fetch_suggested(self, index: int) -> None:
        """Fetches a model that is suggested."""
        suggested = self._first_start.suggestions
        if index < len(suggested):
            self._first_start.hide()
            self.controller.start_pull(suggested[index].name, drafter=True, then_use=True)

    def on_first_start_rate_known(self, message: FirstStart.RateKnown) -> None:
        if self._is_up:
            self._welcome.tell(rate=message.rate)

    async def action_try_question(self, index: int) -> None:
        """Asks one of the questions that are there to try; what is in the prompt stays."""
        self._hide_welcome()
        await self.controller.submit(QUESTIONS[index])

    def _hide_welcome(self) -> None:
        self._welcome.hide()
        self.prompt.tries = ()

    async def action_last_chat(self) -> None:
        """Goes on with the chat that was last used, beside this one."""
        here = self.session.chat
        last = next((chat for chat in self.session.store.chats(2) if here is None or chat.id != here.id), None)
        if last is None:
            raise AppError("no other chat", "none is kept yet")
        await self.action_command(f"/resume {last.id}")

    async def on_event(self, event: Event) -> None:
        written = isinstance(event, Paste) or (isinstance(event, Key) and event.key not in first_start.KEPT)
        if written and self._first_start.suggestions:
            self._first_start.dismiss()
        await super().on_event(event)

    # ---- what the user does ------------------------------------------------------------------------------------------

    def require_idle(self) -> None:
        """Raises AppError while a job runs."""
        if self.busy:
            loading = self.session.info is None
            raise AppError(
                "not now", "the model is being loaded" if loading else "an answer is under way; Esc stops it"
            )

    async def action_command(self, line: str) -> None:
        """Runs a command, from the prompt or from a key."""
        await self.commands.run(line)

    async def on_prompt_input_submitted(self, message: PromptInput.Submitted) -> None:
        """Takes what was typed; what is not taken stays in the prompt."""
        self._hide_welcome()
        try:
            await self.controller.submit(message.text)
        except Exception:
            self.prompt.restore(message.text)
            raise

    async def on_prompt_input_left(self, message: PromptInput.Left) -> None:
        await self.action_quit()

    def on_paste(self, event: Paste) -> None:
        self._insert_in_prompt(event.text)

    def on_key(self, event: Key) -> None:
        bound = event.key in self.screen.active_bindings  # a key of the message that the user went to
        if event.is_printable and event.character is not None and not bound:
            self._insert_in_prompt(event.character)

    def _insert_in_prompt(self, text: str) -> None:
        """What is typed or pasted where no text field is, which would have taken it, goes into the prompt."""
        if len(self.screen_stack) == 1:  # whatever has the focus now: more keys may come from where the first did
            self.screen.set_focus(self.prompt)
            self.prompt.paste(text)

    def on_prompt_input_edit_last(self, message: PromptInput.EditLast) -> None:
        self.controller.edit_last()

    def on_prompt_input_threshold_turned(self, message: PromptInput.ThresholdTurned) -> None:
        if not self.options.policy.takes("threshold"):
            self.notify(f"policy {self.options.policy.label} has no threshold; /policy exact has one", timeout=2)
            return
        now = self.options.policy.threshold
        now = FIRST_THRESHOLD if now is None else now
        self.set_threshold(round(min(1.0, max(0.0, now + message.direction * THRESHOLD_STEP)), 2))

    def on_prompt_input_suggested(self, message: PromptInput.Suggested) -> None:
        if self.prompt.text not in ("", *QUESTIONS):
            self._hide_welcome()
        self._suggestions.show(message.lines, message.chosen, message.note)

    async def on_sidebar_chosen(self, message: Sidebar.Chosen) -> None:
        await self.action_command(f"/resume {message.chat}")
        if message.turn is not None and not self.busy and message.turn not in [turn.id for turn in self.session.branch]:
            self.session.switch_branch(message.turn)  # in another branch
            self.show_chat()
        self._sidebar.hide()
        self.prompt.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Our keys are for the chat: a screen above it (the palette) has its own."""
        if action == "try_question" and not (self.prompt.tries and self._welcome.display):
            return False
        if action == "fetch_suggested" and not self._first_start.suggestions:
            return False
        if len(self.screen_stack) > 1 and action in keys.CHAT_ACTIONS:
            return False
        return super().check_action(action, parameters)

    def on_token_chosen(self, message: TokenChosen) -> None:
        self._token.mark()

    def on_conversation_clicked(self, message: Conversation.Clicked) -> None:
        self._token.at(message.text, message.offset)

    def action_stop(self) -> None:
        self.screen.clear_selection()
        self._token.none()
        if self.prompt.hide_files():
            return
        if not self.prompt.has_focus:
            self._sidebar.hide()
            self.screen.set_focus(self.prompt)
        elif self.controller.editing:
            self.controller.cancel_editing()
        else:
            self.controller.stop()

    def action_page(self, direction: int) -> None:
        if direction < 0 and self.conversation.scroll_offset.y == 0:
            self.conversation.show_earlier()
        elif direction < 0:
            self.conversation.scroll_page_up(animate=False)
        else:
            self.conversation.scroll_page_down(animate=False)

    def action_message(self, step: int) -> None:
        """Goes from message to message."""
        self.conversation.cursor.move(step)

    def action_thoughts(self) -> None:
        """Shows what the model thought, or folds it."""
        if not self.conversation.toggle_thoughts():
            self.notify("no thoughts in this chat", timeout=2)

    def action_sidebar(self) -> None:
        """Shows the list of chats, or hides it."""
        if not self._sidebar.toggle():
            self.prompt.focus()

    async def action_next_view(self) -> None:
        await self.panel.next_view()
        self._view_changed()

    def action_inspect(self, step: int) -> None:
        self._token.step(step)

    def action_editor(self) -> None:
        """Opens the prompt in $EDITOR."""
        failure: Exception | None = None
        text = self.prompt.content
        try:
            with self.suspend():
                try:
                    text = edit(text)
                except Exception as error:  # raised in here, it would keep the screen away
                    failure = error
        except SuspendNotSupported as error:
            failure = AppError("no editor", str(error))
        if failure is not None:
            raise failure
        self.prompt.write(text)

    def _draw_again(self, _: object) -> None:
        """Draws everything: the shell had the terminal."""
        self.refresh(layout=True)

    def action_suspend_process(self) -> None:
        """Back to the shell, whose `fg` shows the screen again."""
        if not job_control.available():
            raise AppError("cannot suspend", "no shell waits behind this screen; Ctrl+D in an empty prompt quits")
        job_control.suspend()

    def action_copy_or_quit(self) -> None:
        """Copies the selected text; where there is none stops the answer, and quits when nothing is computed."""
        selected = self.screen.get_selected_text() or self.prompt.selected_text
        if selected:
            self.copy(selected)
            self.screen.clear_selection()
        elif self.controller.can_stop:
            self.controller.stop()
        else:
            self.exit(OK)

    async def action_quit(self) -> None:
        self.exit(OK)

    def end_soon(self, code: int) -> None:
        """Leaves the screen; for the handler of a signal."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.exit, code)
