"""What the user wants of the session: each of these is one job of its thread."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from specee.app.chat.attachments import attach
from specee.app.engine.client import EngineLostError, Event
from specee.app.errors import PROMPT_TOO_LONG, AppError
from specee.app.tui.answering import MAKE_ROOM
from specee.app.tui.entries import Said
from specee.app.tui.pulling import Pull
from specee.app.tui.race import Race, lanes
from specee.app.tui.worker import Jobs

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp


class Turns:
    """Questions, answers again, and the other jobs."""

    def __init__(self, app: ChatApp, jobs: Jobs) -> None:
        self._app, self._jobs = app, jobs
        self.pull_running: Pull | None = None
        self.changed = False
        """The branch in use is another when the session is free again."""
        self._asked = ""  # goes back into the prompt when it is refused
        self._waiting: str | None = None  # sent before the model was loaded
        self._editing: int | None = None

    @property
    def editing(self) -> bool:
        """Whether the prompt holds an old question that is changed."""
        return self._editing is not None

    def leave_editing(self) -> None:
        self._editing = None

    # ---- questions -------------------------------------------------------------------------------------------------

    def ask(self, written: str) -> None:
        """Sends what was written, with the files that it names."""
        app = self._app
        if self._jobs.busy and app.session.info is not None:
            app.prompt.write(written)  # one at a time: it stays where it was
            app.notify("still answering; Esc stops", timeout=2)
            return
        try:
            text, files = attach(written)
        except AppError as error:
            app.prompt.write(written)
            app.tell(error.line, error=True)
            return
        self._asked = written
        if self._editing is not None:
            self._ask_instead(text)
            return
        app.conversation.add(Said(written))
        if files:
            app.tell("attached: " + ", ".join(f"{file} ({file.stat().st_size} bytes)" for file in files))
        if self._jobs.busy:
            self._waiting = text
        else:
            self._send(text)

    def _send(self, text: str) -> None:
        app = self._app
        app.answering.begin()
        app.work(lambda: app.session.send(text, app.options))

    def _ask_instead(self, text: str) -> None:
        app, turn, self._editing = self._app, self._editing, None
        assert turn is not None
        before = [t.id for t in app.session.branch].index(turn)
        app.conversation.show_path(app.session.branch[:before])
        app.conversation.add(Said(text))
        app.answering.begin()
        app.work(lambda: app.session.edit(turn, text, app.options))

    def edit_last(self) -> None:
        """Puts the last question into the prompt; sending it makes a branch."""
        app = self._app
        question = next((turn for turn in reversed(app.session.branch) if turn.role == "user"), None)
        if question is not None and not self._jobs.busy:
            self._editing = question.id
            app.prompt.write(question.content)
            app.notify("sending makes a branch; Esc leaves it", timeout=3)

    # ---- answers ---------------------------------------------------------------------------------------------------

    def again(self) -> None:
        """The last question once more."""
        app, path = self._app, self._app.session.branch
        app.conversation.show_path(path[:-1] if path and path[-1].role == "assistant" else path)
        app.answering.begin()
        app.work(lambda: app.session.regenerate(app.options))

    def on(self) -> None:
        """More of the last answer."""
        app, path = self._app, self._app.session.branch
        if not path or path[-1].role != "assistant":
            raise AppError("nothing to go on with", "there is no answer yet")
        app.conversation.show_path(path[:-1])
        app.answering.begin(path[-1].content)
        app.work(lambda: app.session.continue_answer(app.options))

    def race(self) -> None:
        """The last question in two lanes; nothing of it is kept."""
        app, self._asked = self._app, ""
        dense, mine = lanes(app.options)
        race = app.answering.race = Race(app.options.policy.label)
        app.conversation.add(race)
        app.work(lambda: chain(app.session.answer_without_saving(dense), app.session.answer_without_saving(mine)))

    # ---- the model -------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Loads the model, if it is not there."""
        self._asked = ""
        self._app.work(self._app.session.open)

    def restart(self) -> None:
        """Ends the engine; if nothing waits for it, starts it again at once."""
        self._app.session.kill()
        if not self._jobs.busy:
            self._app.session.close()
            self.load()

    def summarize(self) -> None:
        """Lets the model sum up the oldest turns."""
        app = self._app
        app.answering.activity = "summarizing"

        def job() -> Iterator[Event]:
            app.session.make_room(summarize=True)
            return iter(())

        self._asked, self.changed = "", True
        app.work(job)

    def pull(self, name: str) -> None:
        """Fetches a model."""
        app, transfer = self._app, Pull(name)
        self.pull_running, self._asked = transfer, ""
        app.answering.activity = f"asking for {name}"

        def job() -> Iterator[Event]:
            transfer.run(self._jobs.show, offline=app.session.offline)
            return iter(())

        app.work(job)

    def stop(self) -> None:
        """Ends what is under way."""
        if self.pull_running is not None:
            self.pull_running.stop()
        self._app.session.cancel()

    # ---- afterwards ------------------------------------------------------------------------------------------------

    def ended(self, error: AppError | None) -> None:
        """A job is over: says what there is to say, and sends what has waited."""
        app = self._app
        transfer, self.pull_running = self.pull_running, None
        refused = error is not None and not isinstance(error, EngineLostError)
        if self.changed or (refused and self._asked):  # what was refused is not there any more
            self.changed = False
            app.show_chat()
        waiting, self._waiting = self._waiting, None
        if error is not None:
            self._tell_error(error)
            return
        if transfer is not None:
            app.tell(transfer.told)
        else:
            app.tell_window()
        if waiting is not None:
            self._send(waiting)

    def _tell_error(self, error: AppError) -> None:
        app = self._app
        app.answering.activity = "" if app.session.info else "not running"
        hint = ""
        if isinstance(error, EngineLostError):
            hint = "\n/continue or /retry starts it again; the conversation is kept"
        elif error.exit_code == PROMPT_TOO_LONG:
            hint = f"\n{MAKE_ROOM}"
        app.tell(error.line + hint, error=True)
        if self._asked and not app.prompt.text and not isinstance(error, EngineLostError):
            app.prompt.write(self._asked)
