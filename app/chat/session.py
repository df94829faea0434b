"""The headless core: a chat that is stored as it grows. The terminal screen and `-p` are its front ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from specee.app import paths
from specee.app.chat.context_window import (
    SUMMARIZE,
    SUMMARY_THOUGHT_TOKENS,
    SUMMARY_TOKENS,
    ContextWindow,
    answered,
    as_messages,
    first_kept,
    sent_turns,
)
from specee.app.chat.history.database import BusyError
from specee.app.chat.history.recorder import Recorder
from specee.app.chat.history.records import Chat, Turn
from specee.app.chat.history.store import NoSuchChatError, Store
from specee.app.engine.client import EngineClient, EngineLostError, Event, Silence, Start, start_process
from specee.app.engine.draft_file import check_drafter
from specee.app.engine.protocol import ChatEvent, Done, Message, ModelInfo, Notice, Progress
from specee.app.errors import PROMPT_TOO_LONG, USAGE, AppError
from specee.app.options import DEFAULT_CTX, NO_DRAFTER, ChatOptions, LoadOptions, Recalled, Sampling, recall, remember
from specee.app.settings import KVType
from specee.models import gguf_header
from specee.models.model_kind import check_answers
from specee.models.resolve import resolve, stable_name


class Session:
    """One chat at a time, with an engine and a store. Not thread-safe, except `cancel` and `kill`.

    A question is in the store before the engine sees it, and answers are written while they grow.
    """

    def __init__(
        self,
        load: LoadOptions,
        system: str | None = None,
        start: Start = start_process,
        store: Store | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        """`given`: settings of the command line, by name."""
        self.store, self.given = store or Store(), given or {}
        self.chat: Chat | None = None
        self.branch: tuple[Turn, ...] = ()
        """The turns from the first question to the end of the branch in use."""
        self._system = system
        self._window = ContextWindow()
        self._client = EngineClient(load, start)

    # ---- state -----------------------------------------------------------------------------------------------------

    @property
    def _load(self) -> LoadOptions:
        return self._client.load

    @property
    def model(self) -> str:
        """The name or path of the model that answers."""
        return stable_name(self._load.model)

    @property
    def info(self) -> ModelInfo | None:
        """The loaded model."""
        return self._client.info

    @property
    def answering(self) -> bool:
        """Whether an answer is under way."""
        return self._client.answering

    @property
    def system(self) -> str | None:
        """The system message of this chat."""
        return self.chat.system if self.chat is not None else self._system

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the next question follows: the chat without what was left out, and without the system message."""
        return tuple(Message(turn.role, turn.sent) for turn in sent_turns(answered(self.branch)))

    @property
    def context_tokens(self) -> int:
        """Tokens of the context window that the chat fills."""
        return self._window.tokens(self.branch)

    # ---- the engine ------------------------------------------------------------------------------------------------

    def open(self) -> Iterator[Notice | Progress | Silence]:
        """Starts the engine and loads the model, unless it runs already. Raises AppError."""
        return self._client.open()

    def cancel(self) -> None:
        """Stops the answer under way, which then ends with Done (stop_reason "cancelled")."""
        self._client.cancel()

    def kill(self) -> None:
        """Ends an engine that hangs; the answer under way ends with EngineLostError and is kept as interrupted."""
        self._client.kill()

    def set_context_size(self, n_ctx: int | None) -> None:
        """The model is loaded again, with a window of so many tokens, at the next question."""
        self._client.reload(replace(self._load, n_ctx=n_ctx))

    def use_model(self, model: str) -> None:
        """Another model answers from the next question on. Raises errors with a title when it is not here, or is no
        model; the one that is loaded stays then."""
        check_answers(gguf_header.read_model(resolve(model).path))
        self._client.reload(replace(self._load, model=model, drafter=None))

    @property
    def drafter(self) -> str | None:
        """The draft model that was asked for; None: the one that belongs to the model."""
        drafter = self._load.drafter
        return drafter if drafter in (None, NO_DRAFTER) else stable_name(drafter)

    def use_drafter(self, drafter: str | None) -> None:
        """Another model drafts from the next question on; None: the one that belongs to the model. Raises errors with a
        title when it is not here or unfit."""
        load = replace(self._load, drafter=drafter)
        check_drafter(load)
        self._client.reload(load)

    @property
    def window(self) -> int:
        """Tokens of the context window that a model is loaded with, unless it was trained for fewer."""
        return self._load.n_ctx or DEFAULT_CTX

    @property
    def kv_type(self) -> KVType:
        """What keys and values of the tokens in the window are kept in."""
        return self._load.kv_type

    def set_kv_type(self, kv_type: KVType) -> None:
        """The model is loaded again, with keys and values of this type, at the next question."""
        self._client.reload(replace(self._load, kv_type=kv_type))

    def leave_out(self, worker: str | None) -> None:
        """The model is loaded again at the next question, without this worker, or for the CPU alone."""
        self._client.leave_out(worker)

    @property
    def load_options(self) -> LoadOptions:
        """What the model is loaded with."""
        return self._load

    def change_load(self, **changes: Any) -> None:
        """The model is loaded again, with these fields of LoadOptions, at the next question."""
        self._client.reload(replace(self._load, **changes))

    @property
    def folders(self) -> paths.Paths:
        """Where our files are."""
        return paths.find(self._load.data_dir)

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.folders.logs

    @property
    def offline(self) -> bool:
        """Whether nothing may be fetched."""
        return self._load.offline

    def close(self) -> None:
        """Ends the engine process."""
        self._client.close()

    # ---- questions and answers -------------------------------------------------------------------------------------

    def send(self, text: str, options: ChatOptions, attached: str = "") -> Iterator[Event]:
        """Asks a question and yields the events of its answer, Done last; `attached` goes with it, behind its text.

        Raises AppError. A question that is refused (it does not fit, no such model) leaves the chat as it was;
        one whose answer was interrupted is kept. A question that has no answer yet becomes a branch of its own.
        """
        before = answered(self.branch)
        with self._unless_deleted():
            yield from self._ask(before[-1].id if before else None, text, options, attached)

    def edit(self, turn_id: int, text: str, options: ChatOptions, attached: str = "") -> Iterator[Event]:
        """Asks something else in place of a question; the old one with its answers stays as another branch."""
        question = self._turn(turn_id, "user")
        with self._unless_deleted():
            yield from self._ask(question.parent, text, options, attached)

    def ask_after(self, turn_id: int, text: str, options: ChatOptions, attached: str = "") -> Iterator[Event]:
        """Asks a question after this answer; what follows that now stays as another branch."""
        answer = self._turn(turn_id, "assistant")
        with self._unless_deleted():
            yield from self._ask(answer.id, text, options, attached)

    def answer_again(self, options: ChatOptions, turn_id: int | None = None) -> Iterator[Event]:
        """Answers a question once more, the last one where none is given; the old answer stays as another branch."""
        question = self._turn(turn_id, "user")
        with self._unless_deleted():
            yield from self._answer(question, None, options)

    def continue_answer(self, options: ChatOptions) -> Iterator[Event]:
        """Continues the last answer where it ended or was interrupted."""
        question, answer = self._turn(None, "user"), self._turn(None, "assistant")
        with self._unless_deleted():
            yield from self._answer(question, answer, options)

    def answer_for_comparison(self, options: ChatOptions) -> Iterator[Event]:
        """Answers the last question as if for the first time; nothing of it is stored."""
        question = self._turn(None, "user")
        turns = sent_turns(self.branch[: self.branch.index(question) + 1])
        yield from self._client.generate(as_messages(self.system, turns), options, is_comparison=True)

    def delete(self, turn_id: int) -> None:
        """Deletes a turn of the branch in use and all that follows it; another version of it takes its place, if there
        is one. A chat that this leaves empty is gone."""
        turn = next((turn for turn in self.branch if turn.id == turn_id), None)
        if turn is None:
            raise AppError("no such message", "this chat does not have it", USAGE)
        with self._unless_deleted():
            others = [other for other in self.store.siblings(turn_id) if other != turn_id]
            self.store.delete_turn(turn_id, turn.parent)
            self._window.reset()
            if others:
                self.store.switch_branch(others[min(turn.place, len(others)) - 1])
            elif turn.parent is None:
                self.new()
            self._refresh()

    def switch_branch(self, turn_id: int) -> None:
        """Goes to the branch of this turn."""
        with self._unless_deleted():
            self.store.switch_branch(turn_id)
            self._window.reset()
            self._refresh()

    # ---- which chat ------------------------------------------------------------------------------------------------

    def new(self) -> None:
        """Begins a new chat, with the same system message."""
        self._system = self.system
        self.chat, self.branch = None, ()
        self._window.reset()

    def resume(self, chat_id: int) -> Recalled:
        """Continues a chat from the store, and returns how: settings that cannot be are corrected there, too.

        Raises AppError when there is no such chat.
        """
        self.chat = self.store.chat(chat_id)
        recalled = recall(self.chat.options)
        if recalled.refused is not None:
            with suppress(BusyError):  # the next time then
                self.store.update_chat(chat_id, options=remember(*recalled[:3]))
        self._window.reset()
        self._refresh()
        return recalled

    def set_system(self, text: str | None) -> None:
        """Another system message from the next question on."""
        if self.chat is not None:
            with self._unless_deleted():
                self.chat = self.store.update_chat(self.chat.id, system=text)
        self._system = text

    def rename(self, title: str) -> None:
        """Another title for this chat. Raises AppError while it is empty, and so not kept yet."""
        if self.chat is None:
            raise AppError("nothing to rename", "this chat is empty")
        with self._unless_deleted():
            self.chat = self.store.update_chat(self.chat.id, title=title)

    # ---- the context window ----------------------------------------------------------------------------------------

    def make_room(self, *, summarize: bool = False) -> int:
        """The model is not sent the oldest turns any more; if wanted, a summary that it writes takes their place.

        Returns how many turns this leaves out. Raises AppError when there is nothing to leave out.
        """
        turns = sent_turns(answered(self.branch))
        first = first_kept(turns)
        if first == 0:
            larger = self.info.larger_window if self.info is not None else None
            advice = ", or ".join(filter(None, ("begin a new chat", larger)))
            why = f"only one question with its answer is left; {advice}"
            raise AppError("no room to make", why, PROMPT_TOO_LONG)
        summary = self._summary(turns[:first]) if summarize else ""
        with self._unless_deleted():
            self.store.cut_before(turns[first].id, summary)
            self._window.leave_out(turns, first, summary)
            self._refresh()
        return first

    def _summary(self, turns: Sequence[Turn]) -> str:
        messages = (*as_messages(self.system, turns), Message("user", SUMMARIZE))
        thinks = self.info is not None and self.info.thinks == "always"
        options = ChatOptions(
            sampling=Sampling(temperature=0.0),
            max_tokens=SUMMARY_TOKENS + (SUMMARY_THOUGHT_TOKENS if thinks else 0),
            think="off",
            think_tokens=SUMMARY_THOUGHT_TOKENS,
        )
        events = self._client.generate(messages, options)
        return "".join(event.said for event in events if isinstance(event, ChatEvent)).strip()

    @contextmanager
    def _unless_deleted(self) -> Iterator[None]:
        """Around what is done to the chat: where another program has deleted it, a new one begins with the next
        question, and AppError says so."""
        try:
            yield
        except NoSuchChatError:
            self.new()
            why = "another program has deleted it; what is asked next begins a new one"
            raise AppError("this chat is gone", why) from None

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _ask(self, parent: int | None, text: str, options: ChatOptions, attached: str) -> Iterator[Event]:
        if self.chat is None:
            self.chat = self.store.new_chat(text, self._system, self._remember(options))
        before = self.chat.leaf
        question = self.store.add_question(self.chat.id, parent, text, attached)
        self._refresh()
        try:
            yield from self._answer(self._turn(question, "user"), None, options)
        except EngineLostError:
            raise
        except AppError:
            if self.branch[-1].id == question:  # refused: no answer was begun
                self.store.delete_turn(question, before)
                self._forget_if_empty()
            raise

    def _answer(self, question: Turn, answer: Turn | None, options: ChatOptions) -> Iterator[Event]:
        """An answer to `question`, or more of `answer`, into the store as it comes."""
        assert self.chat is not None
        if self.chat.options != (kept := self._remember(options)):
            self.store.update_chat(self.chat.id, options=kept)
        before = self.chat.leaf
        if answer is None:
            recorder = self.store.add_answer(self.chat.id, question.id)
        else:
            recorder = self.store.continue_answer(answer.id)
        self._refresh()
        goes_on = answer is not None and bool(answer.content or answer.thought)
        turns = sent_turns(self.branch if goes_on else self.branch[:-1])
        messages = as_messages(self.system, turns, goes_on=goes_on)
        try:
            for event in self._client.generate(messages, options, continue_answer=goes_on):
                self._record(recorder, event)
                yield event
        except AppError as error:
            refused = not recorder.has_grown and not isinstance(error, EngineLostError)
            recorder.finish(answer.state if answer is not None and refused else "interrupted")
            if answer is None and refused:
                self.store.delete_turn(recorder.turn.id, before)
            raise
        finally:
            if not recorder.finished:  # the caller stopped listening
                recorder.finish("stopped")
            self._refresh()

    def _remember(self, options: ChatOptions) -> dict[str, Any]:
        return remember(options, self.model, self.drafter)

    def _record(self, recorder: Recorder, event: Event) -> None:
        if isinstance(event, ChatEvent):
            recorder.add(event)
        elif isinstance(event, Done):
            stopped = event.stats.stop_reason == "cancelled"
            recorder.finish("stopped" if stopped else "complete", event.stats)
            self._window.reset()  # counted anew
            with suppress(NoSuchChatError):  # the answer's end is told first
                self._refresh()

    def _turn(self, turn_id: int | None, role: str) -> Turn:
        """A turn of the branch in use: by its id, or the last one of this role."""
        for turn in reversed(self.branch):
            if turn.role == role and turn_id in (None, turn.id):
                return turn
        what = "question" if role == "user" else "answer"
        raise AppError(f"no such {what}", "this chat does not have it", USAGE)

    def _forget_if_empty(self) -> None:
        """A chat whose only question was deleted is gone from the store."""
        assert self.chat is not None
        if self.chat.turns <= 1:
            self.chat, self.branch = None, ()
        self._refresh()

    def _refresh(self) -> None:
        if self.chat is not None:
            self.chat = self.store.chat(self.chat.id)
            self.branch = self.store.branch(self.chat.id)
