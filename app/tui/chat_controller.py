"""What the user asks of the session: questions, new answers, models. Each is one job of the session's thread."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from specee.app.chat import advice, model_switch
from specee.app.chat.attachments import attach
from specee.app.chat.commands import as_typed, is_command
from specee.app.chat.history.records import Turn
from specee.app.chat.memory_check import DoesNotFitError
from specee.app.chat.race import race_options
from specee.app.engine.client import EngineLostError, Event
from specee.app.errors import AppError
from specee.app.tui.model_pull import ModelPull
from specee.app.tui.question import Question
from specee.app.tui.race import RaceEntry
from specee.app.tui.session_thread import Job, SessionThread

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp


class ChatController:
    """Starts the jobs of one screen, and cleans up after them."""

    def __init__(self, app: ChatApp, thread: SessionThread) -> None:
        self._app, self._thread = app, thread
        self.pull: ModelPull | None = None
        """The download that runs."""
        self._loading = False  # the job that runs loads a model
        self._switched: str | None = None  # what the job that has ended loaded in place of another model
        self._next_model: tuple[str, bool] | None = (
            None  # and whether the user agreed to it: to be loaded when the job that runs is over
        )
        self._closing = False
        self._path_changes = False  # the branch in use is another when the job is over
        self._typed = ""  # what was typed, while it is handled
        self._submitted = ""  # what the job that runs was typed as: it goes back into the prompt when it is refused
        self._shows_more = False  # the conversation shows what is not stored if the job is refused
        self._queued: tuple[str, str] | None = None  # a question sent before the model was loaded, with its files
        self._edited: int | None = None  # the question that the prompt will replace
        self._after: int | None = None  # the answer that the prompt will follow, where that is not the last one
        self._set_aside = ""  # what stood in the prompt before a question to edit did
        self._stopping = False  # the job that runs was told to end

    @property
    def can_stop(self) -> bool:
        """Whether something is computed that the user has not stopped yet; not while the model is loaded."""
        return self._thread.busy and not self._loading and not self._stopping

    @property
    def editing(self) -> bool:
        """Whether what is in the prompt begins a branch: as another version of a question, or after an old answer."""
        return self._edited is not None or self._after is not None

    @property
    def unsent(self) -> str:
        """What was typed and not sent; also a question that waits for the model."""
        queued = self._submitted if self._queued is not None else ""
        return "\n".join(text for text in (queued, self._set_aside, self._app.prompt.content) if text)

    def leave_editing(self) -> None:
        """What stood in the prompt before stands there again."""
        self._edited = self._after = None
        text, self._set_aside = self._set_aside, ""
        if text:
            self._app.prompt.restore(text)

    def cancel_editing(self) -> None:
        """The branch that was shown before is in use again."""
        if self._after is not None:
            self._app.show_chat()
        else:
            self._app.prompt.clear()
            self.leave_editing()

    async def submit(self, text: str) -> None:
        """Takes what was typed: a command or a question. Raises errors when it cannot."""
        self._typed = text
        try:
            if is_command(text):
                if text.split() != ["/earlier"]:
                    self._app.conversation.go_to_end()
                await self._app.action_command(text)
            else:
                self._ask(text.strip())
        finally:
            self._typed = ""

    def _run(self, job: Job, *, shows_more: bool = False) -> None:
        self._submitted, self._shows_more, self._stopping = self._typed, shows_more, False
        self._app.run_job(job)

    # ---- questions -------------------------------------------------------------------------------------------------

    def _ask(self, text: str) -> None:
        """Sends a question, with the files that it names."""
        app = self._app
        if self._thread.busy and (not self._loading or self._queued is not None or self.editing):
            app.prompt.restore(self._typed)  # one at a time: it stays in the prompt
            app.notify("the model is being loaded" if self._loading else "still answering; Esc stops", timeout=2)
            return
        attached, files = attach(text)
        turn, after = self._edited, self._after
        self.leave_editing()
        if turn is not None:
            before = [t.id for t in app.session.branch].index(turn)
            app.conversation.show_branch(app.session.branch[:before])
        app.conversation.go_to_end()
        app.conversation.add_question(text)
        if files:
            doubts = [file.doubt for file in files if file.doubt is not None]
            app.show_notice("\n".join([f"attached: {', '.join(map(str, files))}", *doubts]))
        if self._thread.busy:
            self._submitted, self._queued = self._typed, (text, attached)
            return
        app.event_display.begin()
        if turn is not None:
            self._run(lambda: app.session.edit(turn, text, app.options, attached), shows_more=True)
        elif after is not None:
            self._run(lambda: app.session.ask_after(after, text, app.options, attached), shows_more=True)
        else:
            self._run(lambda: app.session.send(text, app.options, attached), shows_more=True)

    def _send_queued(self, text: str, attached: str) -> None:
        app, self._typed = self._app, self._submitted
        app.event_display.begin()
        self._run(lambda: app.session.send(text, app.options, attached), shows_more=True)
        self._typed = ""

    def edit_last(self) -> None:
        """Puts the last question into the prompt; sending it makes a branch."""
        question = next((turn for turn in reversed(self._app.session.branch) if turn.role == "user"), None)
        if question is not None and not self._thread.busy:
            self.edit(question)

    def edit(self, question: Turn) -> None:
        """Puts a question into the prompt; sending it makes a branch."""
        app = self._app
        if self._edited is None:
            self._set_aside = app.prompt.content
        self._edited, self._after = question.id, None
        app.prompt.focus()
        app.prompt.write(as_typed(question.content))
        app.notify("Enter asks this instead, Esc cancels; the old question stays as a branch", timeout=3)

    def branch_after(self, answer: Turn) -> None:
        """The next question follows this answer; what follows it now stays as a branch."""
        app, branch = self._app, self._app.session.branch
        until = [turn.id for turn in branch].index(answer.id) + 1
        app.prompt.focus()
        if until == len(branch):
            app.notify("this is the last answer: the next question follows it", timeout=3)
            return
        self._edited, self._after = None, answer.id
        app.conversation.show_branch(branch[:until])
        app.show_notice("your next question begins a branch here; Esc shows the later messages again")

    # ---- answers ---------------------------------------------------------------------------------------------------

    def answer_again(self, turn: Turn | None = None) -> None:
        """Answers a question once more: the one of this turn, or the last one."""
        app, branch = self._app, self._app.session.branch
        ids = [each.id for each in branch]
        last = turn or (branch[-1] if branch else None)
        question = None
        if last is not None:
            question = last.parent if last.role == "assistant" else last.id
        if question is not None:
            app.conversation.show_branch(branch[: ids.index(question) + 1])
        app.event_display.begin()
        self._run(lambda: app.session.answer_again(app.options, question), shows_more=True)

    def continue_answer(self) -> None:
        """Lets the last answer go on."""
        app, branch = self._app, self._app.session.branch
        if not branch or branch[-1].role != "assistant":
            raise AppError("nothing to continue", "there is no answer yet")
        app.conversation.show_branch(branch[:-1])
        app.event_display.begin(branch[-1].content, branch[-1].thought)
        self._run(lambda: app.session.continue_answer(app.options), shows_more=True)

    def race(self) -> None:
        """Answers the last question twice, dense and with the policy in use; nothing of it is stored."""
        app = self._app
        dense, mine = race_options(app.options)
        race = app.event_display.race = RaceEntry(app.options.policy.label)
        app.conversation.add(race)
        self._run(lambda: chain(app.session.answer_for_comparison(dense), app.session.answer_for_comparison(mine)))

    # ---- the model -------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Loads the model, unless it is loaded."""
        self._loading = True
        self._run(self._app.session.open)

    def load_changed(self) -> None:
        """Loads what the session was told to; where that cannot be, what was loaded before stays in use."""
        self._loading = True
        session = self._app.session
        before = "what was loaded before"
        self._run(lambda: model_switch.open_or_go_back(session, before, is_closing=lambda: self._closing))

    def switch_model(self, name: str, *, agreed: bool = False) -> None:
        """Another model answers: once it is loaded, and that begins when the job that runs is over. Where it cannot be
        loaded, the one before goes on. `agreed`: the user knows that it does not fit into memory."""
        app = self._app
        if self._thread.busy:
            self._next_model = name, agreed
            app.show_notice(f"{name} is loaded when {'this model is' if self._loading else 'the answer is over'}")
            return
        session = app.session

        def job() -> Iterator[Event]:
            yield from model_switch.switch(session, name, agreed=agreed, is_closing=lambda: self._closing)
            self._switched = session.info.name if session.info is not None else name

        self._loading = True
        self._run(job)

    def restart(self) -> None:
        """Ends the engine; if no job waits for it, starts it again at once."""
        self._app.session.kill()
        if not self._thread.busy:
            self._app.session.close()
            self.load()

    def summarize(self) -> None:
        """Lets the model sum up the oldest turns."""
        app = self._app
        app.event_display.activity = "summarizing"

        def job() -> Iterator[Event]:
            app.session.make_room(summarize=True)
            return iter(())

        self._path_changes = True
        self._run(job)

    def start_pull(self, name: str, *, drafter: bool = False, then_use: bool = False) -> None:
        """Downloads a model, beside whatever else is done. Raises AppError while another one is downloaded."""
        app = self._app
        if self.pull is not None:
            raise AppError("not now", f"{self.pull.name} is still being downloaded; Esc stops that")
        self.pull = ModelPull(name, drafter=drafter, then_use=then_use, typed=self._typed)
        self.pull.start(app.post_message, app.session.logs, offline=app.session.offline)
        app.event_display.refresh()

    def stop(self) -> None:
        """Ends the job that runs, else the download."""
        if self.pull is not None and (self._loading or not self._thread.busy):
            self.pull.stop()
        self._stopping = True
        self._app.session.cancel()

    def close(self) -> None:
        """Ends everything: the screen closes."""
        self._closing = True
        if self.pull is not None:
            self.pull.stop()
        self._app.session.cancel()

    # ---- afterwards ------------------------------------------------------------------------------------------------

    def pull_ended(self, error: AppError | None) -> None:
        """The download is over: shows its outcome, and loads the model if the user wants that."""
        app, pull = self._app, self.pull
        self.pull = None
        if pull is None:
            return
        if error is not None:
            app.show_notice(error.line, error=True)
            if pull.typed and not app.prompt.text:
                app.prompt.restore(pull.typed)
        else:
            app.show_notice(pull.message)
            if pull.then_use:
                self.switch_model(pull.name)
        app.event_display.refresh()

    def job_ended(self, error: AppError | None) -> None:
        """A job is over: shows its outcome, and sends a question that was queued."""
        app = self._app
        self._loading = False
        switched, self._switched = self._switched, None
        refused = error is not None and not isinstance(error, EngineLostError)
        queued, self._queued = self._queued, None
        if self._path_changes or (refused and self._shows_more) or (error is not None and queued is not None):
            self._path_changes = False
            app.show_chat()  # a question that was refused is not stored
        if isinstance(error, DoesNotFitError):
            self._ask_about_memory(error)
        elif error is not None:
            self._show_error(error)
            if error.of_device:
                self._ask_about_cpu(error)
            if self._submitted and (refused or queued is not None):
                app.prompt.restore(self._submitted)
        else:
            if switched is not None:
                app.show_notice(f"{switched} answers from here on")
            app.warn_when_nearly_full()
            if queued is not None:
                self._send_queued(*queued)
                return
        following, self._next_model = self._next_model, None
        if following is not None:
            self.switch_model(following[0], agreed=following[1])

    def _ask_about_memory(self, error: DoesNotFitError) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self.switch_model(error.model, agreed=True)

        self._app.push_screen(Question(error.message, "load it"), answered)

    def _ask_about_cpu(self, error: AppError) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._app.session.leave_out(error.worker)
                self.load()

        question = f"{error.line}. {advice.who_goes_on(error, self._app.session.load_options)} The chat is kept."
        self._app.push_screen(Question(question, "go on"), answered)

    def _show_error(self, error: AppError) -> None:
        app = self._app
        app.event_display.activity = "" if app.session.info else "not running"
        hint = advice.after(error, app.session.info)
        app.show_notice(error.line if hint is None else f"{error.line}\n{hint}", error=True)
