"""The screen survives its handlers, and what was typed is never lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_session import FakeSession, chat, idle, notices, ready, submit, until
from textual.events import Key, Paste
from textual.widgets import OptionList

from specee.app import editor
from specee.app.chat.commands import is_command
from specee.app.errors import AppError
from specee.app.tui import job_control
from specee.app.tui.app import ChatApp


def last_notice(app: Any) -> str:
    return notices(app)[-1]


def keys(app: Any, text: str) -> None:
    """Sends keys at once, as a terminal without bracketed paste does with a pasted text."""
    names = {"\n": "enter", "\t": "tab"}
    for character in text:
        app.post_message(Key(names.get(character, character), (names.get(character) and None) or character))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/export ~nobody99/a.md", "no such user"),
        ("/export no/such/folder/a.md", "cannot write"),
        ("/export /proc/x.md", "cannot write"),
        ("/model ~nobody99/x", "no such user: ~nobody99/x: there is no home folder for ~nobody99"),
        ("/model " + "x" * 5000, "model not found"),
        ("/model a\0b", "is not a name"),
        ("/set drafter", "is not a name"),
        ("/set temperature", "is not a number from 0 to 10"),
        ("/set temperature 1_0", "is not a number from 0 to 10"),
        ("/set seed 1.0", "is not a whole number"),
        ("/set seed \uff12", "is not a whole number"),
        ("/copy \uff12", "cannot copy that"),
        ("/copy 1_0", "cannot copy that"),
        ("/ctx", "is not a whole number"),
        ("/threshold", "is not a number from 0 to 1 or 'calibrated'"),
        ("/pull", "no model given"),
        ("/persona nobody", "unknown persona"),
        ("/system a\0b", "is not text in UTF-8"),
        ("/view", "unknown view"),
        ("/resume 99999999999999999999", ""),
        ("/resume 7\0", "not a whole number"),
        ("/branch x", "no branches"),
        ("/ctx 1e9", ""),
        ("/theme [/bold]", "unknown theme"),
        ("/view [red", "unknown view"),
        ("/set temperature [/x]", ""),
        ("/copy code 9", "no such code block"),
        ("/nothing here", "there is no command /nothing"),
        ("/pull ../no/such/model.gguf", "model not found"),
    ],
)
async def test_a_command_that_fails_is_a_notice_and_stays_in_the_prompt(line: str, says: str) -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        before = len(notices(pilot.app))
        await submit(pilot, line)
        await until(pilot, lambda: len(notices(pilot.app)) > before and idle(pilot.app))
        assert says in last_notice(pilot.app)
        assert pilot.app.prompt.text == line
        pilot.app.prompt.clear()
        await submit(pilot, "Still there?")
        await until(pilot, lambda: len(session.sent) == 2)


@pytest.mark.parametrize(
    "text", ["@/proc/self/mem", "@~nobody99/x", "@/", "@missing.txt", "@x\0y.txt", "@$HOME/x", '@"a b.txt"', "@(x.txt)"]
)
async def test_a_file_that_cannot_be_sent_leaves_the_question_in_the_prompt(text: str) -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, f"Read {text}")
        await until(pilot, lambda: session.sent or pilot.app.prompt.text)
        assert not session.sent and pilot.app.prompt.text == f"Read {text}"
        assert "cannot attach" in last_notice(pilot.app)


async def test_somebody_who_is_no_file_is_sent() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "write to @~nobody99 today")
        await until(pilot, lambda: session.sent)
        assert session.sent[0][0] == "write to @~nobody99 today"


@pytest.mark.parametrize("where", ["handler", "action", "timer", "watcher", "job's end", "callback"])
async def test_whatever_raises_the_screen_stays(where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("[/bold] \x1b[2J")

    session = FakeSession()
    async with chat(session).run_test() as pilot:
        app = pilot.app
        await ready(pilot)
        monkeypatch.setattr(type(session), "logs", tmp_path)
        if where == "handler":
            monkeypatch.setattr(app.session.store, "search", broken)
            await pilot.press("ctrl+f", "a")
            await until(pilot, lambda: any("internal error: " in text for text in notices(app)))
            monkeypatch.undo()
            monkeypatch.setattr(type(session), "logs", tmp_path)
            await pilot.press("b")  # the list still gets its messages
            await until(pilot, lambda: app.query_one(OptionList).option_count == 0)
        elif where == "action":
            monkeypatch.setattr(app.panel, "next_view", broken)
            await pilot.press("f2")
        elif where == "timer":
            app.set_timer(0.01, broken)
        elif where == "callback":
            app.conversation.call_later(broken)
        elif where == "watcher":
            monkeypatch.setattr(app.prompt, "completions", broken)
            await pilot.press("x")
            monkeypatch.undo()
            monkeypatch.setattr(type(session), "logs", tmp_path)
        else:
            monkeypatch.setattr(app.conversation, "close_answer", broken)
            await submit(pilot, "Hi")
        await until(pilot, lambda: any("internal error: " in text for text in notices(app)))
        monkeypatch.undo()
        assert app.is_running and "ZeroDivisionError" in last_notice(app) and "\x1b" not in last_notice(app)
        assert "Traceback" in (tmp_path / "errors.log").read_text()
        await until(pilot, lambda: idle(app))
        app.prompt.focus()
        await submit(pilot, "Still there?")
        await until(pilot, lambda: session.sent and session.sent[-1][0] == "Still there?")


async def test_a_widget_that_cannot_be_drawn_says_so_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        monkeypatch.setattr(type(session), "logs", tmp_path)
        monkeypatch.setattr(pilot.app.status, "render_line", broken)
        for _ in range(3):
            pilot.app.status.refresh()
            await pilot.pause(0.05)
        await until(pilot, lambda: "ZeroDivisionError" in last_notice(pilot.app))
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        assert sum("ZeroDivisionError" in text for text in notices(pilot.app)) == 1


async def test_a_screen_that_cannot_show_an_error_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    app = chat(FakeSession())
    with pytest.raises(ZeroDivisionError):
        async with app.run_test() as pilot:
            await ready(pilot)
            monkeypatch.setattr(app, "show_error", broken)
            app.set_timer(0.01, broken)
            await until(pilot, lambda: app.fatal_error is not None)
    assert app.return_code == 1


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 10), (10, 3), (20, 1), (300, 2), (5, 60)])
async def test_a_terminal_of_any_size(size: tuple[int, int]) -> None:
    session = FakeSession("a **b** `c`\n\n```py\nx\n```\n\n| a | b |\n|---|---|\n| c | d |\n\n> - quoted")
    async with chat(session).run_test(size=size) as pilot:
        await ready(pilot)
        await submit(pilot, "Hi there")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        for key in ("f2", "f2", "f2", "f2", "f2", "f2", "f2", "ctrl+b", "x", "ctrl+f", "escape", "pageup", "pagedown"):
            await pilot.press(key)
        await pilot.resize_terminal(80, 24)
        await pilot.pause(0.05)
        assert not any("internal error" in text for text in notices(pilot.app))


# ---- what is typed -------------------------------------------------------------------------------------------------


def test_what_is_a_command() -> None:
    for text in ("/", "/help", "/set temperature 1", "/what", "/system a\nb"):
        assert is_command(text), text
    for text in ("/usr/bin/python3 is what?", " /help", "//x", "/tmp/a\nb", "a /help", "/what?", "/etc/passwd", "/-"):
        assert not is_command(text), text


@pytest.mark.parametrize("text", ["/usr/bin/env: what is it?", "/ ", "//", "/etc/hosts\nand more"])
async def test_a_question_that_begins_with_a_slash_is_sent(text: str) -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, f" {text}")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        assert session.sent[0][0] == text.strip()


async def test_a_question_that_looks_like_a_command_comes_back_as_a_question() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, " /help is what in IRC?")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.press("up")
        await until(pilot, lambda: pilot.app.prompt.text == " /help is what in IRC?")
        await pilot.press("enter")
        await until(pilot, lambda: len(session.sent) == 2)
        assert session.sent[1][0] == "/help is what in IRC?"


@pytest.mark.parametrize(
    ("pasted", "prompt", "sent"),
    [
        ("one\ntwo\nthree", "one\ntwo\nthree", []),
        ("one\n\n\ttwo\n", "", ["one\n\n\ttwo"]),
        ("/usr/bin/x\ny", "/usr/bin/x\ny", []),
        ("one\n", "", ["one"]),
    ],
)
async def test_a_paste_without_brackets_is_one_text(pasted: str, prompt: str, sent: list[str]) -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        keys(pilot.app, pasted)
        await until(pilot, lambda: pilot.app.prompt.text == prompt and len(session.sent) == len(sent))
        await pilot.pause(0.2)
        assert pilot.app.prompt.text == prompt and [text for text, _ in session.sent] == sent


async def test_a_paste_in_brackets_is_not_sent() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        pilot.app.post_message(Paste("/usr/bin/python3\nwhat is it?\n"))
        await until(pilot, lambda: "what is it?" in pilot.app.prompt.text)
        await pilot.press("enter")
        await until(pilot, lambda: session.sent)
        assert session.sent[0][0] == "/usr/bin/python3\nwhat is it?"


async def test_what_is_typed_beside_a_text_field_goes_into_the_prompt() -> None:
    async with chat(FakeSession()).run_test() as pilot:
        await ready(pilot)
        await pilot.press("ctrl+b")
        await until(pilot, lambda: isinstance(pilot.app.focused, OptionList))
        await pilot.press("a", "b")
        await until(pilot, lambda: pilot.app.prompt.text == "ab" and pilot.app.prompt.has_focus)
        await pilot.press("ctrl+b", "ctrl+b")
        await until(pilot, lambda: isinstance(pilot.app.focused, OptionList))
        pilot.app.post_message(Paste("c d"))
        await until(pilot, lambda: pilot.app.prompt.text == "abc d")
        await pilot.press("ctrl+b", "ctrl+b")
        await until(pilot, lambda: isinstance(pilot.app.focused, OptionList))
        keys(pilot.app, "efgh")  # all of them before the first has moved the focus
        await until(pilot, lambda: pilot.app.prompt.text == "abc defgh")


async def test_questions_that_come_too_early_stay() -> None:
    session = FakeSession()
    session.loaded.clear()
    async with chat(session).run_test() as pilot:
        await submit(pilot, "one")
        await until(pilot, lambda: not pilot.app.prompt.text)
        await submit(pilot, "two")
        await until(pilot, lambda: pilot.app.prompt.text == "two")
        session.loaded.set()
        await until(pilot, lambda: session.sent and idle(pilot.app))
        assert session.sent[0][0] == "one" and pilot.app.prompt.text == "two"


async def test_a_model_that_cannot_be_loaded_gives_the_question_back() -> None:
    session = FakeSession(load_error=AppError("no memory", "take a smaller model"))
    session.loaded.clear()
    async with chat(session).run_test() as pilot:
        await submit(pilot, "one")
        await until(pilot, lambda: not pilot.app.prompt.text)
        await pilot.press("t", "w", "o")
        session.loaded.set()
        await until(pilot, lambda: idle(pilot.app) and pilot.app.prompt.text == "one\ntwo")


async def test_up_shows_what_was_typed_and_sends_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("secret 42")
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "Shorten @notes.txt")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        assert session.sent[0][0].count("secret 42") == 1
        await pilot.press("up")
        await until(pilot, lambda: pilot.app.prompt.text == "Shorten @notes.txt")
        await pilot.press("!", "enter")
        await until(pilot, lambda: len(session.sent) == 2 and idle(pilot.app))
        assert session.sent[1][0].count("secret 42") == 1 and session.sent[1][0].startswith("Shorten @notes.txt!")
        question = session.branch[0]
        assert (question.content, question.attached.count("secret")) == ("Shorten @notes.txt!", 1)
        await submit(pilot, "And?")
        await until(pilot, lambda: len(session.sent) == 3)
        assert "secret 42" in session.asked[2].messages[0].content  # the model still sees the file


# ---- the editor ----------------------------------------------------------------------------------------------------


@contextmanager
def nothing() -> Iterator[None]:
    yield


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.skipif(os.name != "posix", reason="scripts as editors are for Unix")
@pytest.mark.parametrize(
    ("does", "says"),
    [
        (None, "no editor"),
        ("'vi", "bad editor"),
        ("/", "no editor"),
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "exit code -9"),
        ("rm $1", "left no text"),
        ("rm $1; mkdir $1", "left no text"),
        ("rm $1; mkfifo $1", "left no text behind (it is no regular file); the prompt is as it was"),
        ("rm $1; ln -s /dev/zero $1", "left no text behind (it is no regular file); the prompt is as it was"),
        ("rm $1; ln -s gone $1", "left no text"),
        ("yes text | head -c 30000000 > $1", "left a text of more than 4 MiB; the prompt is as it was"),
        ("printf '\\0\\1\\2' > $1", ""),
    ],
)
async def test_an_editor_that_fails_leaves_the_prompt(
    does: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quoted = does in ("'vi", "/")
    command = does if quoted else script(tmp_path / "ed", does) if does else "no-such-editor"
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", str(command))
    async with chat(FakeSession()).run_test() as pilot:
        await ready(pilot)
        monkeypatch.setattr(ChatApp, "suspend", lambda self: nothing())
        pilot.app.prompt.write("my text")
        before = len(notices(pilot.app))
        await pilot.press("ctrl+g")
        await until(pilot, lambda: len(notices(pilot.app)) > before)
        assert says in last_notice(pilot.app) and pilot.app.prompt.text == "my text"


@pytest.mark.skipif(os.name != "posix", reason="scripts as editors are for Unix")
def test_what_an_editor_leaves_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    left = {r"caf\351": "café", r"caf\303\251": "café", r"\357\273\277x": "x", r"a\r\nb\n": "a\nb"}
    for octets, text in left.items():
        monkeypatch.setenv("EDITOR", script(tmp_path / "ed", f"printf '{octets}' > $1"))
        assert editor.edit("") == text
    for blank in ("", "  "):
        monkeypatch.setenv("EDITOR", blank)
        assert editor.command() == ["vi"]


# ---- leaving -------------------------------------------------------------------------------------------------------


async def test_ctrl_d_leaves_when_the_prompt_is_empty() -> None:
    app = chat(FakeSession())
    async with app.run_test() as pilot:
        await ready(pilot)
        app.prompt.write("ab")
        await pilot.press("home", "ctrl+d")
        await until(pilot, lambda: app.prompt.text == "b")
        await pilot.press("ctrl+d", "ctrl+d")
        await until(pilot, lambda: not app.is_running)
    assert app.return_code == 0


async def test_ctrl_z_suspends_or_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda group, number: sent.append((group, number)))
    async with chat(FakeSession()).run_test() as pilot:
        await ready(pilot)
        monkeypatch.setattr(job_control, "available", lambda: False)
        await pilot.press("a", "ctrl+z")
        await until(pilot, lambda: "cannot suspend" in last_notice(pilot.app))
        assert not sent and pilot.app.prompt.text == "a"
        monkeypatch.setattr(job_control, "available", lambda: True)
        await pilot.press("ctrl+z")
        await until(pilot, lambda: sent == [(os.getpgrp(), signal.SIGTSTP)])
        await pilot.press("ctrl+underscore")
        await until(pilot, lambda: not pilot.app.prompt.text)


async def test_a_question_that_waits_for_the_model_is_not_lost_when_the_user_leaves() -> None:
    session = FakeSession()
    session.loaded.clear()
    async with chat(session).run_test() as pilot:
        await pilot.pause()
        await submit(pilot, "Why?")
        await until(pilot, lambda: pilot.app.prompt.text == "")
        pilot.app.prompt.write("and")
        assert pilot.app.controller.unsent == "Why?\nand"
        await pilot.press("ctrl+q")
    assert pilot.app.controller.unsent == "Why?\nand" and not session.asked
