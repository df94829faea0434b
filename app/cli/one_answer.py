"""One answer on standard output: as text, as one JSON object, or as a stream of JSON events."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from specee.app.chat.session import Session
from specee.app.chat.stats_line import about_thoughts, stats_line
from specee.app.cli import streams
from specee.app.cli.interrupts import interrupt_cancels
from specee.app.cli.output import print_json
from specee.app.engine.client import Event, Silence
from specee.app.engine.protocol import ChatEvent, Done, Notice, Progress, PromptProgress, Started
from specee.app.errors import INTERRUPTED, OK, PROMPT_TOO_LONG, AppError
from specee.app.options import ChatOptions
from specee.predictors.decoding.stats import DecodingStats


def ask(
    session: Session,
    text: str | None,
    options: ChatOptions,
    form: str = "text",
    stats: bool = False,
    when_full: str = "stop",
    attached: str = "",
) -> int:
    """Answers `text` with what is `attached`, or goes on with the last answer (None); `form` is text, json or jsonl.

    `stats` prints the figures on standard error. Returns the exit code. Raises AppError. Only verified text is printed:
    nothing is ever taken back.
    """
    printer = _PRINTERS[form](session)
    code = OK
    tells_of_thinking = True
    with interrupt_cancels(session), _told_below_the_answer(session, printer):
        for event in _events(session, text, options, when_full, attached):
            if tells_of_thinking and session.info is not None:
                tells_of_thinking = False
                if (why := session.info.cannot_think(options.think)) is not None:
                    print(f"specee-chat: {why}", file=sys.stderr)
            if isinstance(event, Notice) and isinstance(printer, _Text):
                printer.make_room()
            printer(event)
            if isinstance(event, Silence) and form != "jsonl":
                print(f"specee-chat: no sign of the engine for {event.seconds:.0f} s; Ctrl+C ends it", file=sys.stderr)
            if isinstance(event, Notice) and form != "jsonl":
                print(f"specee-chat: {event.text}", file=sys.stderr)
            if isinstance(event, Done):
                if (known := about_thoughts(event.stats)) is not None:
                    print(f"specee-chat: {known}", file=sys.stderr)
                if stats:
                    print(stats_line(event.stats), file=sys.stderr)
                if event.stats.stop_reason == "cancelled":
                    code = INTERRUPTED
    return code


def _events(session: Session, text: str | None, options: ChatOptions, when_full: str, attached: str) -> Iterator[Event]:
    """Sends the text, if there is one; makes room for it first if need be and allowed, and says so."""
    while True:
        try:
            if text is None:
                yield from session.continue_answer(options)
            else:
                yield from session.send(text, options, attached)
            return
        except AppError as error:
            if error.exit_code != PROMPT_TOO_LONG or when_full == "stop" or not session.messages:
                raise
        dropped = session.make_room(summarize=when_full == "summarize")
        how = "summarized" if when_full == "summarize" else "left out"
        print(
            f"specee-chat: the context window is full: the oldest {dropped} turns are {how} from now on",
            file=sys.stderr,
        )


@contextmanager
def _told_below_the_answer(session: Session, printer: object) -> Iterator[None]:
    """An error in the middle of an answer begins on a line of its own, and says what became of the answer."""
    try:
        yield
    except AppError as error:
        if isinstance(printer, _Text):
            printer.end_line()
        if not (isinstance(printer, _Text) and printer.has_begun):
            raise
        last = session.branch[-1] if session.branch else None
        whole = last is not None and last.role == "assistant" and last.content.endswith(printer.text)
        kept = "is kept" if whole and session.store.is_kept else "is not, or not all of it, in the history"
        why = f"{error.message}; the answer above {kept}"
        raise AppError(error.title, why, error.exit_code, of_device=error.of_device, worker=error.worker) from error


def result(session: Session, events: list[ChatEvent], done: Done) -> dict[str, Any]:
    """The object of --json."""
    stats = done.stats
    counted = DecodingStats(**stats.policy_stats)
    return {
        "model": session.info.name if session.info else "",
        "policy": stats.policy,
        "policy_reason": stats.policy_reason,
        "text": "".join(event.said for event in events),
        "thought": "".join(event.text for event in events if event.channel == "thought"),
        "thought_tokens": stats.thought_tokens,
        "prompt_tokens": stats.prompt_tokens,
        "tokens": _tokens(events),
        "n_layers": stats.n_layers,
        "mean_exit_layer": round(stats.mean_exit_layer, 4),
        "tokens_per_step": _rounded(counted.tokens_per_step),
        "acceptance": _rounded(counted.acceptance),
        "tokens_per_second": round(stats.tokens_per_second, 3),
        "ttft_s": round(stats.ttft_s, 6),
        "stop_reason": stats.stop_reason,
        "stats": asdict(stats),
        "chat": session.chat.id if session.chat and session.store.is_kept else None,
    }


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 4)


def _tokens(events: list[ChatEvent]) -> list[dict[str, Any]]:
    """One entry a token; an event that only completes a character adds its text to its token's entry. A token that ends
    a marker and begins a text belongs to the text."""
    tokens: dict[int, dict[str, Any]] = {}
    for event in events:
        if event.stop:
            continue
        new = {
            "id": event.token,
            "text": "",
            "exit_layer": event.exit_layer,
            "drafter": event.drafter,
            "channel": event.channel,
        }
        token = tokens.setdefault(event.index, new)
        if event.text and not token["text"]:
            token["channel"] = event.channel
        token["text"] += event.text
    return [tokens[index] for index in sorted(tokens)]


class _Text:
    """The answer as it comes, and a line end where it has none; on a terminal its thought, dim, before it."""

    def __init__(self, session: Session) -> None:
        self._shows_thoughts = sys.stdout.isatty()
        self._line_open = self._in_thought = False
        self.text = ""

    @property
    def has_begun(self) -> bool:
        return bool(self.text)

    def make_room(self) -> None:
        """A line on standard error is to come in the middle of the answer; only on a terminal they meet."""
        if self._line_open and sys.stdout.isatty() and sys.stderr.isatty():
            print(file=sys.stderr)

    def end_line(self) -> None:
        """What comes next on this terminal begins a line."""
        self._end_thought()
        if self._line_open:
            with suppress(OSError):  # it may be the disk that is full
                sys.stdout.write("\n")
                sys.stdout.flush()
        self._line_open = False

    def __call__(self, event: Event) -> None:
        text = ""
        if isinstance(event, ChatEvent):
            if self._shows_thoughts and event.state == "verified" and event.channel == "thought" and event.text:
                self._begin_thought()
                text = event.text
            elif text := event.said:
                self._end_thought()
                self.text += text
        elif isinstance(event, Done):
            self._end_thought()
            text = "\n" if self._line_open else ""
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._line_open = not text.endswith("\n")

    def _begin_thought(self) -> None:
        if not self._in_thought:
            streams.style_output(streams.DIM)
        self._in_thought = True

    def _end_thought(self) -> None:
        """An empty line stands between it and the answer."""
        if self._in_thought:
            self._in_thought = False
            with suppress(OSError):
                streams.style_output(streams.PLAIN)
                sys.stdout.write("\n\n" if self._line_open else "\n")
                self._line_open = False


class _Json:
    """One object at the end."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._events: list[ChatEvent] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, ChatEvent) and event.state == "verified":
            self._events.append(event)
        elif isinstance(event, Done):
            print_json(result(self._session, self._events, event))


class _JsonLines:
    """An object an event; `type` is notice, progress, silence, prompt, start, token or done."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._events: list[ChatEvent] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Done):
            print_json({"type": "done", **result(self._session, self._events, event)})
            return
        if isinstance(event, ChatEvent) and event.state == "verified":
            self._events.append(event)
        print_json({"type": _KINDS[type(event)], **asdict(event)})


_KINDS: dict[type, str] = {
    Notice: "notice",
    Progress: "progress",
    Silence: "silence",
    PromptProgress: "prompt",
    Started: "start",
    ChatEvent: "token",
}
_PRINTERS: dict[str, Callable[[Session], Callable[[Event], None]]] = {
    "text": _Text,
    "json": _Json,
    "jsonl": _JsonLines,
}
