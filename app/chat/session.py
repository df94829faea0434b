"""The headless core: a conversation that is kept. The terminal screen and `-p` are its two front ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from specee.app.chat.history.recorder import Recorder
from specee.app.chat.history.records import Chat, Turn
from specee.app.chat.history.store import Store
from specee.app.engine.client import EngineClient, EngineLostError, Event, Silence, Start, start_process
from specee.app.engine.protocol import ChatEvent, Done, Message, ModelInfo, Progress, Stats
from specee.app.errors import PROMPT_TOO_LONG, USAGE, AppError
from specee.app.options import ChatOptions, LoadOptions, Sampling, remember
from specee.models.resolve import resolve

NEARLY_FULL = 0.8  # of the window: time to say so
KEPT_SHARE = 0.5  # of the text, when room is made
SUMMARY_TOKENS = 256
SUMMARIZE = "Summarize our conversation so far in at most five sentences. Keep names, numbers and decisions."
SUMMARY_HEAD = "Summary of the conversation so far:"


class Session:
    """One conversation at a time, with an engine and a store. Not thread-safe, except `cancel` and `kill`.

    What is said is in the store before the engine sees it, and answers are written while they grow.
    """

    def __init__(
        self,
        load: LoadOptions,
        system: str | None = None,
        start: Start = start_process,
        store: Store | None = None,
    ) -> None:
        self.store = store or Store()
        self.chat: Chat | None = None
        self.path: tuple[Turn, ...] = ()
        self._load = load
        self._system = system
        self._kept = 1.0  # the share of the counted tokens that a cut since has left
        self._client = EngineClient(load, start)

    # ---- what there is ---------------------------------------------------------------------------------------------

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
        """The system prompt of this conversation."""
        return self.chat.system if self.chat is not None else self._system

    @property
    def turns(self) -> tuple[Message, ...]:
        """What the next question follows: the conversation without what was cut, and without the system prompt."""
        return tuple(Message(turn.role, turn.content) for turn in sent_part(answered(self.path)))

    @property
    def used(self) -> int:
        """Tokens of the window that the conversation fills: counted at its last answer, estimated after a cut."""
        said = answered(self.path)
        stats = said[-1].stats if said else None
        return round((stats["prompt_tokens"] + stats["tokens"]) * self._kept) if stats else 0

    # ---- the engine ------------------------------------------------------------------------------------------------

    def open(self) -> Iterator[Progress | Silence]:
        """Starts the engine and loads the model, unless it runs already. Raises AppError."""
        return self._client.open()

    def cancel(self) -> None:
        """Stops the answer under way, which then ends with Done (stop_reason "cancelled")."""
        self._client.cancel()

    def kill(self) -> None:
        """Ends an engine that hangs; the answer under way ends with EngineLostError and is kept as interrupted."""
        self._client.kill()

    def widen(self, n_ctx: int) -> None:
        """The model is loaded again, with another window, at the next question."""
        self._load = replace(self._load, n_ctx=n_ctx)
        self._client.reload(self._load)

    def use(self, model: str) -> None:
        """Another model answers from the next question on. Raises errors with a title when it is not here."""
        resolve(model)
        self._load = replace(self._load, model=model)
        self._client.reload(self._load)

    @property
    def offline(self) -> bool:
        """Whether nothing may be fetched."""
        return self._load.offline

    def close(self) -> None:
        """Ends the engine process."""
        self._client.close()

    # ---- saying things ---------------------------------------------------------------------------------------------

    def send(self, text: str, options: ChatOptions) -> Iterator[Event]:
        """Says something and yields what comes of it, Done last.

        Raises AppError. A question that is refused (it does not fit, no such model) leaves the conversation as it was;
        one whose answer was broken off is kept. A question that has no answer yet becomes a branch of its own.
        """
        before = answered(self.path)
        yield from self._ask(before[-1].id if before else None, text, options)

    def edit(self, turn_id: int, text: str, options: ChatOptions) -> Iterator[Event]:
        """Asks something else in place of a question; the old one with its answers stays as another branch."""
        question = self._turn(turn_id, "user")
        yield from self._ask(question.parent, text, options)

    def regenerate(self, options: ChatOptions) -> Iterator[Event]:
        """Answers the last question once more; the old answer stays as another branch."""
        question = self._turn(None, "user")
        yield from self._grow(question, None, options)

    def go_on(self, options: ChatOptions) -> Iterator[Event]:
        """Lets the last answer go on where it ended or was broken off."""
        question, answer = self._turn(None, "user"), self._turn(None, "assistant")
        yield from self._grow(question, answer, options)

    def rehearse(self, options: ChatOptions) -> Iterator[Event]:
        """Answers the last question once more, without a trace in the store."""
        question = self._turn(None, "user")
        turns = sent_part(self.path[: self.path.index(question) + 1])
        yield from self._client.generate(self._messages(turns), options)

    def choose(self, turn_id: int) -> None:
        """Goes to the branch of this turn."""
        self.store.choose(turn_id)
        self._kept = 1.0
        self._refresh()

    # ---- which conversation ----------------------------------------------------------------------------------------

    def new(self) -> None:
        """Begins a new conversation, with the same system prompt."""
        self._system = self.system
        self.chat, self.path, self._kept = None, (), 1.0

    def resume(self, chat_id: int) -> None:
        """Goes on with a chat from the store. Raises AppError when there is none."""
        self.chat = self.store.chat(chat_id)
        self._kept = 1.0
        self._refresh()

    def set_system(self, text: str | None) -> None:
        """Another system prompt from the next question on."""
        self._system = text
        if self.chat is not None:
            self.chat = self.store.change(self.chat.id, system=text)

    # ---- the window ------------------------------------------------------------------------------------------------

    def make_room(self, *, summarize: bool = False) -> int:
        """Leaves the oldest turns out from now on, replaced by a summary of the model's if wanted; it is marked.

        Returns how many turns are left out by this. Raises AppError when there is nothing to leave out.
        """
        turns = sent_part(answered(self.path))
        first = _first_kept(turns)
        if first == 0:
            why = "only one question with its answer is left; begin a new conversation, or give a larger --ctx"
            raise AppError("no room to make", why, PROMPT_TOO_LONG)
        summary = self._summary(turns[:first]) if summarize else ""
        self.store.cut_before(turns[first].id, summary)
        self._kept *= (_characters(turns[first:]) + len(summary)) / max(1, _characters(turns))
        self._refresh()
        return first

    def _summary(self, turns: Sequence[Turn]) -> str:
        messages = (*self._messages(turns), Message("user", SUMMARIZE))
        options = ChatOptions(sampling=Sampling(temperature=0.0), max_tokens=SUMMARY_TOKENS)
        events = self._client.generate(messages, options)
        return "".join(e.text for e in events if isinstance(e, ChatEvent) and e.state == "verified").strip()

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _ask(self, parent: int | None, text: str, options: ChatOptions) -> Iterator[Event]:
        if self.chat is None:
            self.chat = self.store.begin(text, self._system, remember(options))
        before = self.chat.leaf
        question = self.store.ask(self.chat.id, parent, text)
        self._refresh()
        try:
            yield from self._grow(self._turn(question, "user"), None, options)
        except EngineLostError:
            raise
        except AppError:
            if self.path[-1].id == question:  # refused: nothing came
                self.store.take_back(question, before)
                self._forget_if_empty()
            raise

    def _grow(self, question: Turn, answer: Turn | None, options: ChatOptions) -> Iterator[Event]:
        """An answer to `question`, or more of `answer`, into the store as it comes."""
        assert self.chat is not None
        if self.chat.options != remember(options):
            self.store.change(self.chat.id, options=remember(options))
        before = self.chat.leaf
        recorder = self.store.answer(self.chat.id, question.id) if answer is None else self.store.go_on(answer.id)
        self._refresh()
        go_on = bool(answer is not None and answer.content)
        turns = sent_part(self.path if go_on else self.path[:-1])
        try:
            for event in self._client.generate(self._messages(turns), options, go_on=go_on):
                self._record(recorder, event)
                yield event
        except AppError as error:
            refused = recorder.text == recorder.turn.content and not isinstance(error, EngineLostError)
            recorder.finish(answer.state if answer is not None and refused else "interrupted")
            if answer is None and refused:
                self.store.take_back(recorder.turn.id, before)
            raise
        finally:
            if not recorder.finished:  # the caller stopped listening
                recorder.finish("stopped")
            self._refresh()

    def _record(self, recorder: Recorder, event: Event) -> None:
        if isinstance(event, ChatEvent):
            recorder.add(event)
        elif isinstance(event, Done):
            stopped = event.stats.stop_reason == "cancelled"
            recorder.finish("stopped" if stopped else "complete", event.stats)
            self._refresh()

    def _messages(self, turns: Sequence[Turn]) -> tuple[Message, ...]:
        """Turns after a system message: the system prompt, and the summary of what was cut."""
        summary = turns[0].cut if turns and turns[0].cut else ""
        parts = [self.system or "", f"{SUMMARY_HEAD}\n{summary}" if summary else ""]
        text = "\n\n".join(part for part in parts if part)
        head = (Message("system", text),) if text else ()
        return (*head, *(Message(turn.role, turn.content) for turn in turns))

    def _turn(self, turn_id: int | None, role: str) -> Turn:
        """A turn of the branch in use: by its id, or the last one of this role."""
        for turn in reversed(self.path):
            if turn.role == role and turn_id in (None, turn.id):
                return turn
        what = "question" if role == "user" else "answer"
        raise AppError(f"no such {what}", "this conversation does not have it", USAGE)

    def _forget_if_empty(self) -> None:
        """A chat whose only question was taken back is gone from the store."""
        assert self.chat is not None
        if self.chat.turns <= 1:
            self.chat, self.path = None, ()
        self._refresh()

    def _refresh(self) -> None:
        if self.chat is not None:
            self.chat = self.store.chat(self.chat.id)
            self.path = self.store.path(self.chat.id)


def answered(path: Sequence[Turn]) -> Sequence[Turn]:
    """The path without a question at its end that has no answer, or an empty one."""
    end = len(path)
    while end and (path[end - 1].role == "user" or not path[end - 1].content):
        end -= 1
    return path[:end]


def sent_part(path: Sequence[Turn]) -> Sequence[Turn]:
    """The turns that the model is sent: from the last cut on."""
    cuts = [index for index, turn in enumerate(path) if turn.cut is not None]
    return path[cuts[-1] :] if cuts else path


def _first_kept(turns: Sequence[Turn]) -> int:
    """The index of the oldest question that stays when about half of the text shall go; 0 when nothing can go."""
    questions = [index for index, turn in enumerate(turns) if turn.role == "user" and index]
    if not questions:
        return 0
    half = KEPT_SHARE * _characters(turns)
    return next((index for index in questions if _characters(turns[index:]) <= half), questions[-1])


def _characters(turns: Sequence[Turn]) -> int:
    return sum(len(turn.content) for turn in turns)


def summary(stats: Stats) -> str:
    """The figures of one answer as one line."""
    skipped = "" if stats.mean_exit_layer >= stats.n_layers else " with exits"
    return (
        f"{stats.tokens} tokens, {stats.tokens_per_second:.1f} tokens/s{skipped}, first after {stats.ttft_s:.2f} s, "
        f"mean exit layer {stats.mean_exit_layer:.1f} of {stats.n_layers}, prompt {stats.prompt_tokens} tokens "
        f"({stats.reused} reused), policy {stats.policy} ({stats.policy_reason}), stopped: {stats.stop_reason}"
    )
