"""What the user asks of the session: questions, new answers, models. Each is one job of the session's thread."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from specee.app.chat.attachments import attach
from specee.app.engine.client import EngineLostError, Event
from specee.app.errors import PROMPT_TOO_LONG, AppError
from specee.app.tui.entries import QuestionEntry
from specee.app.tui.event_display import MAKE_ROOM
from specee.app.tui.model_pull import ModelPull
from specee.app.tui.race import RaceEntry, race_options
from specee.app.tui.session_thread import SessionThread

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp


class ChatController:
    """Starts the jobs of one screen, and cleans up after them."""

    def __init__(self, app: ChatApp, thread: SessionThread) -> None:
        self._app, self._thread = app, thread
        self._pull: ModelPull | None = None
        self._path_changes = False  # the branch in use is another when the job is over
        self._hides_answer = False  # until there is a new one, which may be refused
        self._submitted = ""  # goes back into the prompt when it is refused
        self._queued: str | None = None  # a question sent before the model was loaded
        self._edited: int | None = None  # the question that the prompt will replace

    @property
    def editing(self) -> bool:
        """Whether the prompt holds an old question to be changed."""
        return self._edited is not None

    def leave_editing(self) -> None:
        self._edited = None

    # ---- questions -------------------------------------------------------------------------------------------------

    def ask(self, submitted: str) -> None:
        """Sends a question, with the files that it names."""
        app = self._app
        if self._thread.busy and app.session.info is not None:
            app.prompt.write(submitted)  # one at a time: it stays in the prompt
            app.notify("still answering; Esc stops", timeout=2)
            return
        try:
            attached, files = attach(submitted)
        except AppError as error:
            app.prompt.write(submitted)
            app.show_notice(error.line, error=True)
            return
        text, self._submitted = submitted + attached, submitted
        if self._edited is not None:
            self._ask_instead(text)
            return
        app.conversation.add(QuestionEntry(submitted))
        if files:
            app.show_notice("attached: " + ", ".join(map(str, files)))
        if self._thread.busy:
            self._queued = text
        else:
            self._send(text)

    def _send(self, text: str) -> None:
        app = self._app
        app.event_display.begin()
        app.run_job(lambda: app.session.send(text, app.options))

    def _ask_instead(self, text: str) -> None:
        app, turn, self._edited = self._app, self._edited, None
        assert turn is not None
        before = [t.id for t in app.session.branch].index(turn)
        app.conversation.show_branch(app.session.branch[:before])
        app.conversation.add(QuestionEntry(text))
        app.event_display.begin()
        app.run_job(lambda: app.session.edit(turn, text, app.options))

    def edit_last(self) -> None:
        """Puts the last question into the prompt; sending it makes a branch."""
        app = self._app
        question = next((turn for turn in reversed(app.session.branch) if turn.role == "user"), None)
        if question is not None and not self._thread.busy:
            self._edited = question.id
            app.prompt.write(question.content)
            app.notify("Enter asks this instead, Esc cancels; the old question stays as a branch", timeout=3)

    # ---- answers ---------------------------------------------------------------------------------------------------

    def answer_again(self) -> None:
        """Answers the last question once more."""
        app, branch = self._app, self._app.session.branch
        app.conversation.show_branch(branch[:-1] if branch and branch[-1].role == "assistant" else branch)
        self._hides_answer = True
        app.event_display.begin()
        app.run_job(lambda: app.session.answer_again(app.options))

    def continue_answer(self) -> None:
        """Lets the last answer go on."""
        app, branch = self._app, self._app.session.branch
        if not branch or branch[-1].role != "assistant":
            raise AppError("nothing to continue", "there is no answer yet")
        app.conversation.show_branch(branch[:-1])
        self._hides_answer = True
        app.event_display.begin(branch[-1].content)
        app.run_job(lambda: app.session.continue_answer(app.options))

    def race(self) -> None:
        """Answers the last question twice, dense and with the policy in use; nothing of it is stored."""
        app, self._submitted = self._app, ""
        dense, mine = race_options(app.options)
        race = app.event_display.race = RaceEntry(app.options.policy.label)
        app.conversation.add(race)
        app.run_job(lambda: chain(app.session.answer_for_comparison(dense), app.session.answer_for_comparison(mine)))

    # ---- the model -------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Loads the model, unless it is loaded."""
        self._submitted = ""
        self._app.run_job(self._app.session.open)

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

        self._submitted, self._path_changes = "", True
        app.run_job(job)

    def pull(self, name: str) -> None:
        """Downloads a model."""
        app, pull = self._app, ModelPull(name)
        self._pull, self._submitted = pull, ""
        app.event_display.activity = f"looking for {name}"

        def job() -> Iterator[Event]:
            pull.run(self._thread.show, offline=app.session.offline)
            return iter(())

        app.run_job(job)

    def stop(self) -> None:
        """Ends the job that runs."""
        if self._pull is not None:
            self._pull.stop()
        self._app.session.cancel()

    # ---- afterwards ------------------------------------------------------------------------------------------------

    def job_ended(self, error: AppError | None) -> None:
        """A job is over: shows its outcome, and sends a question that was queued."""
        app = self._app
        pull, self._pull = self._pull, None
        refused = error is not None and not isinstance(error, EngineLostError)
        # a question that was refused is not stored, and the answer that it would have replaced is
        if self._path_changes or (refused and (self._submitted or self._hides_answer)):
            app.show_chat()
        self._path_changes = self._hides_answer = False
        queued, self._queued = self._queued, None
        if error is not None:
            self._show_error(error)
            return
        if pull is not None:
            app.show_notice(pull.message)
        else:
            app.warn_when_nearly_full()
        if queued is not None:
            self._send(queued)

    def _show_error(self, error: AppError) -> None:
        app = self._app
        app.event_display.activity = "" if app.session.info else "not running"
        hint = ""
        if isinstance(error, EngineLostError):
            hint = "\n/continue or /retry starts it again; the chat is kept"
        elif error.exit_code == PROMPT_TOO_LONG:
            hint = f"\n{MAKE_ROOM}"
        app.show_notice(error.line + hint, error=True)
        if self._submitted and not app.prompt.text and not isinstance(error, EngineLostError):
            app.prompt.write(self._submitted)
