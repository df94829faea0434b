"""A chat in lines: for terminals that cannot draw, slow connections and screen readers.

Answers come as they are written, below each other; nothing is ever drawn again, and no control sequence but colours is
sent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from specee.app import error_log, model_download
from specee.app.chat import advice, model_switch
from specee.app.chat.attachments import attach
from specee.app.chat.commands import as_typed, is_command
from specee.app.chat.context_window import NEARLY_FULL
from specee.app.chat.history.records import Turn
from specee.app.chat.memory_check import DoesNotFitError
from specee.app.chat.race import RaceRun, race_options, verdict
from specee.app.chat.saved_texts import SavedTexts
from specee.app.chat.session import Session
from specee.app.chat.stats_line import about_thoughts, stats_line
from specee.app.cli import streams
from specee.app.cli.interrupts import interrupt_cancels
from specee.app.engine.client import Event, Silence
from specee.app.engine.protocol import ChatEvent, Done, Notice, Progress, PromptProgress, Started
from specee.app.errors import OK, AppError
from specee.app.options import ChatOptions
from specee.app.plain.colours import MarkdownColours
from specee.app.plain.commands import PlainCommands, QuitError
from specee.app.plain.line_input import LineInput
from specee.models import registry
from specee.models.transfer import TransferProgress

TOLD_SECONDS = 5.0  # between two lines about something that takes long


class PlainChat:
    """One chat in lines; the front end of its commands. Texts go to standard output, all else to standard error."""

    def __init__(
        self, session: Session, options: ChatOptions, personas: Mapping[str, str], *, stats: bool = False
    ) -> None:
        """`stats`: figures after each answer."""
        self.session, self.options = session, options
        self.texts = SavedTexts(session.folders.config, personas)
        self.known_models = {name: entry.notes for name, entry in registry.entries().items()}
        self._stats = stats
        self.commands = PlainCommands(self)
        self._input = LineInput(self.commands.completions)
        self._edited: int | None = None  # the question that the next one replaces
        self._tells_of_thinking = True
        self._style = streams.PLAIN

    def run(self, notice: str | None = None) -> int:
        """Until the user leaves; returns the exit code. `notice`: what the user should know at once."""
        try:
            return self._run(notice)
        finally:
            self._input.close()

    def _run(self, notice: str | None) -> int:
        if self.session.branch:
            self.show_chat()
        if notice is not None:
            self.show_notice(notice, error=True)
        self._guarded(self.texts.read)  # Tab knows their names
        self._guarded(self.load)
        if self._input.is_terminal:
            name = self.session.info.name if self.session.info is not None else self.session.model
            self.show_notice(f"{name} answers. /help lists commands, Ctrl+D quits.")
        while True:
            try:
                text = self._input.read()
            except EOFError:
                if self._input.is_terminal:
                    print()
                return OK
            except KeyboardInterrupt:
                self._edited = None
                print()
                self.show_notice("Ctrl+D quits")
                continue
            if text.strip():
                try:
                    self._guarded(partial(self._take, text), text)
                except QuitError:
                    return OK

    def _take(self, text: str) -> None:
        if is_command(text):
            self.commands.start(text)
        else:
            self.ask(text.strip())

    def _guarded(self, job: Callable[[], object], typed: str = "") -> None:
        """Runs a job; its error becomes a line, and what was typed comes back where that can be."""
        try:
            job()
        except QuitError:
            raise
        except KeyboardInterrupt:  # the second one: the engine does not listen
            self.session.kill()
            print()
            self.show_notice("stopped; the chat is kept")
        except Exception as error:
            told = error_log.told(error, self.session.logs)
            hint = advice.after(told, self.session.info)
            self.show_notice(told.line if hint is None else f"{told.line}; {hint}", error=True)
            if told.of_device and self._input.confirm(advice.who_goes_on(told, self.session.load_options)):
                self.session.leave_out(told.worker)
                self.show_notice("so it will be from the next question on")
            if typed:
                self._input.prefill(typed)

    # ---- what commands need ------------------------------------------------------------------------------------------

    def require_idle(self) -> None:
        """Nothing runs while a command does."""

    def show(self, text: str) -> None:
        """A line that was asked for."""
        print(text)

    def show_notice(self, text: str, *, error: bool = False) -> None:
        """A message from the program."""
        sys.stdout.flush()
        print(f"specee-chat: {text}" if error or not self._input.is_terminal else f"[{text}]", file=sys.stderr)

    def show_chat(self) -> None:
        """The last question with its answer."""
        self.show_turns(self.session.branch[-2:])
        hidden = len(self.session.branch) - 2
        if hidden > 0:
            self.show_notice(f"{hidden} turns before this; /earlier shows them")

    def show_turns(self, turns: Sequence[Turn]) -> None:
        """Turns of the chat."""
        for turn in turns:
            if turn.role == "user":
                print(f">>> {turn.content}")
            else:
                self._print(MarkdownColours().feed(turn.content + "\n"))

    def write_prompt(self, text: str) -> None:
        """The next text begins with it; where nobody could change it, it is asked."""
        if not self._input.begin(as_typed(text)):
            self.ask(text)

    def set_threshold(self, threshold: float | None) -> None:
        """Of the next answers."""
        self.options = replace(self.options, policy=replace(self.options.policy, threshold=threshold))

    def load_changed(self) -> None:
        """Loads what the session was told to."""
        self._follow(model_switch.open_or_go_back(self.session, "what was loaded before"))

    # ---- questions and answers ---------------------------------------------------------------------------------------

    def load(self) -> None:
        """Loads the model, unless it is loaded."""
        self._follow(self.session.open())

    def ask(self, text: str) -> None:
        """Sends a question, with the files that it names."""
        attached, files = attach(text)
        for file in files:
            self.show_notice(f"attached: {file}" + ("" if file.doubt is None else f"; {file.doubt}"))
        edited, self._edited = self._edited, None
        if edited is None:
            self.answer(self.session.send(text, self.options, attached))
        else:
            self.answer(self.session.edit(edited, text, self.options, attached))

    def edit(self, turn: int, text: str) -> None:
        """The next question replaces this one."""
        self._edited = turn
        if not self._input.prefill(text):
            self.show(text)
        self.show_notice("what is asked next replaces the last question, Ctrl+C cancels; the old one stays as a branch")

    def answer(self, events: Iterable[Event]) -> None:
        """Prints an answer as it comes."""
        colours, in_thought, line_open = MarkdownColours(), False, False
        watch = _Watch(self.show_notice)
        with self._input.keeps_what_is_typed(), interrupt_cancels(self.session):
            try:
                for event in events:
                    if isinstance(event, ChatEvent):
                        if event.state == "verified" and event.channel == "thought" and event.text:
                            self._write(streams.DIM, event.text)
                            in_thought = line_open = True
                        elif event.said:
                            if in_thought:
                                self._write(streams.PLAIN, "\n\n")
                                in_thought = False
                            self._print(colours.feed(event.said))
                            line_open = not event.said.endswith("\n")
                    elif isinstance(event, Done):
                        self._print(colours.end())
                        self._end_line(line_open)
                        line_open = False
                        self._tell_of_end(event)
                    elif isinstance(event, Started):
                        self._tell_of_thinking()
                    else:
                        watch(event)
            finally:
                if isinstance(events, Generator):
                    events.close()  # now, and not when the history is closed: what came is kept
                self._print(colours.end())
                self._end_line(line_open)

    def race(self) -> None:
        """Answers the last question twice, and compares."""
        runs = RaceRun("dense"), RaceRun(self.options.policy.label)
        with self._input.keeps_what_is_typed(), interrupt_cancels(self.session):
            for run, options in zip(runs, race_options(self.options), strict=True):
                for event in self.session.answer_for_comparison(options):
                    if isinstance(event, ChatEvent):
                        run.add(event)
                    elif isinstance(event, Done):
                        run.stats = event.stats
                self.show(run.title)
        self.show(verdict(*runs))

    # ---- models ------------------------------------------------------------------------------------------------------

    def switch_model(self, name: str) -> None:
        """Another model answers."""
        try:
            self._follow(model_switch.switch(self.session, name))
        except DoesNotFitError as error:
            if not self._input.confirm(error.message):
                raise AppError(error.title, "the model before goes on answering") from None
            self._follow(model_switch.switch(self.session, name, agreed=True))
        assert self.session.info is not None
        self.show_notice(f"{self.session.info.name} answers from here on")

    def pull(self, name: str) -> None:
        """Downloads a model; Ctrl+C stops that."""
        told: dict[str, float] = {}

        def show(model: str, progress: TransferProgress) -> None:
            now = time.monotonic()
            if now - told.get(model, 0.0) >= TOLD_SECONDS:
                told[model] = now
                self.show_notice(f"downloading {model}: {progress.fraction:.0%}")

        try:
            self.show_notice(model_download.fetch(name, show, offline=self.session.offline))
        except KeyboardInterrupt:
            raise model_download.stopped(name) from None

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _follow(self, events: Iterator[Event]) -> None:
        watch = _Watch(self.show_notice)
        with self._input.keeps_what_is_typed(), interrupt_cancels(self.session):
            for event in events:
                watch(event)

    def _tell_of_thinking(self) -> None:
        info = self.session.info
        if self._tells_of_thinking and info is not None:
            self._tells_of_thinking = False
            if (why := info.cannot_think(self.options.think)) is not None:
                self.show_notice(why)

    def _tell_of_end(self, done: Done) -> None:
        stats, info = done.stats, self.session.info
        if (known := about_thoughts(stats)) is not None:
            self.show_notice(known)
        if stats.stop_reason == "window":
            self.show_notice(f"the context window is full: {advice.how_to_make_room(info)}; then /continue")
        elif stats.stop_reason != "stop":
            self.show_notice(
                "stopped; /continue goes on" if stats.stop_reason == "cancelled" else "cut off; /continue goes on"
            )
        if info is not None and stats.stop_reason != "window":
            share = self.session.context_tokens / info.n_ctx
            if share >= NEARLY_FULL:
                self.show_notice(f"the context window is {share:.0%} full: {advice.how_to_make_room(info)}")
        if self._stats:
            self.show_notice(stats_line(stats))

    def _print(self, pieces: Iterable[tuple[str, str]]) -> None:
        for style, text in pieces:
            self._write(style, text)

    def _write(self, style: str, text: str) -> None:
        self._set_style(style)
        sys.stdout.write(text)
        sys.stdout.flush()

    def _set_style(self, style: str) -> None:
        if style != self._style:
            streams.style_output(streams.PLAIN)
            if style != streams.PLAIN:
                streams.style_output(style)
        self._style = style

    def _end_line(self, is_open: bool) -> None:
        self._set_style(streams.PLAIN)
        if is_open:
            print(flush=True)


class _Watch:
    """Lines about what takes long; what is over soon is not told."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._next = time.monotonic() + TOLD_SECONDS / 5

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Notice):
            self._tell(event.text)
        elif isinstance(event, Silence):
            self._tell(f"the model has been silent for {event.seconds:.0f} s: it is slow, or it hangs; Ctrl+C stops it")
        elif now >= self._next:
            self._next = now + TOLD_SECONDS
            if isinstance(event, Progress):
                self._tell(event.what + ("" if event.fraction is None else f" {event.fraction:.0%}"))
            elif isinstance(event, PromptProgress):
                self._tell(f"reading the prompt, {event.done} of {event.total} tokens")
