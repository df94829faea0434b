"""The chat in lines: what it prints, what it takes, and that nothing typed is lost."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_session import FakeSession

from specee.app import config_file
from specee.app.chat import setting_list
from specee.app.chat.history.store import Store
from specee.app.errors import AppError
from specee.app.options import ChatOptions, LoadOptions
from specee.app.plain.chat import PlainChat
from specee.app.plain.colours import BOLD, CODE, PLAIN, MarkdownColours
from specee.app.plain.line_input import LineInput

ANSWER = "# Title\nsome **bold** words and `code` * x\n```python\nx = 1\n# no heading\n```\n- **a**: b\n**open"


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_colours_change_no_character(size: int) -> None:
    colours = MarkdownColours()
    pieces = [piece for at in range(0, len(ANSWER), size) for piece in colours.feed(ANSWER[at : at + size])]
    pieces += colours.end()
    assert "".join(text for _, text in pieces) == ANSWER
    styled: dict[str, str] = {}
    for style, text in pieces:
        styled[style] = styled.get(style, "") + text
    assert styled[BOLD] == "# Title**bold****a****open"
    assert styled[CODE] == "`code````pythonx = 1# no heading```"
    assert "* x" in styled[PLAIN]


class Lines:
    """What is typed, in place of a terminal."""

    def __init__(self, *lines: str) -> None:
        self.lines = iter(lines)

    def readline(self) -> str:
        return next(self.lines, "")

    def isatty(self) -> bool:
        return False


def chat(monkeypatch: pytest.MonkeyPatch, session: FakeSession, *lines: str, **given: Any) -> int:
    monkeypatch.setattr(sys, "stdin", Lines(*(f"{line}\n" for line in lines)))
    session.given = given
    try:
        return PlainChat(session, ChatOptions(), {"tutor": "Explain."}).run()
    finally:
        session.close()


def test_questions_and_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    session = FakeSession()
    assert chat(monkeypatch, session, "Hello", "", '"""', "two", "lines", '"""', "/quit", "never") == 0
    out = capsys.readouterr().out
    assert out == "**Bold** words here\n" * 2
    assert [text for text, _ in session.sent] == ["Hello", "two\nlines"]


def test_commands_are_those_of_the_screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    session = FakeSession()
    typed = ("One", "/set temperature 0.3", "/persona tutor", "Two", "/retry", "/branch 1", "/resume", "/race", "/help")
    assert chat(monkeypatch, session, *typed) == 0
    out, err = capsys.readouterr()
    assert session.sent[1][1].sampling.temperature == 0.3 and session.system == "Explain."
    assert "persona" in out and "1  One" in out and "temperature 0.3 from the next answer on" in err
    assert len(session.store.tree(1)) == 5


def kept_in(folder: Path, text: str = "") -> FakeSession:
    (folder / "config.toml").write_text(text)
    return FakeSession(load=LoadOptions(data_dir=str(folder)))


def test_settings_are_listed_with_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = kept_in(
        tmp_path, "max-tokens = 1024\noffline = true\npersona = 'tutor'\n[personas]\ntutor = 'Explain.'\n"
    )
    typed = (
        "/set top_p 0.5",
        "/set think off",
        "/persona tutor",
        "/settings",
        "/settings top-k",
        "/settings tempratur",
    )
    assert chat(monkeypatch, session, *typed, top_k=40) == 0
    out, err = capsys.readouterr()
    listed = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line.startswith("  ")}
    assert set(listed) == {one.name for one in setting_list.all_settings()}
    assert listed["temperature"] == "0.6 default" and listed["top_p"] == "0.5 this chat"
    assert listed["think"] == "off this chat" and listed["cpu_fallback"] == "off default"
    assert listed["top_k"] == "40 command line" and listed["max_tokens"] == "1024 config.toml"
    assert listed["offline"] == "on config.toml" and listed["system"] == "Explain. persona tutor"
    assert "top_k is 40 (command line)." in err and "a whole number from 0 to 1000000" in err
    assert "no such setting: 'tempratur'; did you mean temperature?" in err


def test_a_setting_is_for_this_chat_or_kept_in_the_file_of_the_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session, file = kept_in(tmp_path, "# mine\ntop_k = 20 # few\nseed = 1\n[personas]\n"), tmp_path / "config.toml"
    typed = [
        *("/settings temperature 0.3", "/settings top_k 30 --keep", "/settings seed default --keep"),
        *("/settings max-tokens 7", "/settings max-tokens --keep", "/settings kv_type q8_0"),
        *("/settings kv_type q8_0", "Hello"),
    ]
    assert chat(monkeypatch, session, *typed) == 0
    sent = session.sent[0][1]
    assert (sent.sampling.temperature, sent.sampling.top_k, sent.sampling.seed, sent.max_tokens) == (0.3, 30, None, 7)
    assert file.read_text() == "# mine\ntop_k = 30 # few\nmax-tokens = 7\n[personas]\n"
    assert [load.kv_type for load in session.loads] == ["f16", "q8_0"]  # not again for what is so already
    err = capsys.readouterr().err
    assert "temperature 0.3 from the next answer on" in err and f"top_k 30 is kept in {file}" in err


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("temperature hot", "'hot' is not a number from 0 to 10"),
        ("temperature hot --keep", "'hot' is not a number from 0 to 10"),
        ("offline on", "read when specee-chat starts: --keep"),
        ("repeat_last_n 3 --keep", "config.toml has no place for it"),
        ("draft_length 3 --keep", "dense has no draft length"),
        ("persona nobody --keep", "'nobody' is not under [personas]"),
        ("--keep", "no such setting: '';"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    typed: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = kept_in(tmp_path, "# mine\n")
    chat(monkeypatch, session, "/policy dense", f"/settings {typed}")
    assert why in capsys.readouterr().err and (tmp_path / "config.toml").read_text() == "# mine\n"


def test_prompts_and_personas_are_saved_used_renamed_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = kept_in(tmp_path, "# mine\n")
    typed = [
        *("/prompt", "/prompt save x", "What is it?", "/prompt save what", '/prompt save "two words" Say: a b.'),
        *("/prompt save what Again", "/prompt what", "/prompt rename what how", '/prompt rename how "two words"'),
        *("/system Be brief.", "/persona save brief", "/persona save long Go on.", "/persona long", "/persona"),
        *("/prompt delete two words", "/prompt", "/prompt what", "/persona delete nobody", "/persona rename a"),
    ]
    assert chat(monkeypatch, session, *typed) == 0
    assert [text for text, _ in session.sent] == ["What is it?"] * 2 and session.system == "Go on."
    found = config_file.read(tmp_path / "config.toml")
    assert found == {"prompts": {"how": "What is it?"}, "personas": {"brief": "Be brief.", "long": "Go on."}}
    out, err = capsys.readouterr()
    assert out.endswith("brief: Be brief.\nlong: Go on.\ntutor: Explain.\nhow: What is it?\n")
    told = ["no saved prompt is kept yet", "nothing to save", "what is kept", "two words is kept"]
    told += ["there is one that is called what", "what is called how now", "there is one that is called two words"]
    told += [
        "brief is kept",
        "two words is deleted; it was: Say: a b.",
        "choose from how",
        "unknown persona",
        "two names",
    ]
    assert [what for what in told if what not in err] == []


def test_the_persona_of_every_chat_is_not_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "persona = 'tutor'\n[personas]\ntutor = 'Explain.'\n"
    chat(monkeypatch, kept_in(tmp_path, text), "/persona delete tutor", "/persona rename tutor teacher")
    assert capsys.readouterr().err.count("in use: config.toml has persona = 'tutor'") == 2
    assert (tmp_path / "config.toml").read_text() == text


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("/settings policy c", ["/settings policy chain"]),
        ("/settings kv_", ["/settings kv_type", "/settings kv_type f16", "/settings kv_type q8_0"]),
        ("/prompt del", ['/prompt delete "two words"']),
        ("/persona ", ["/persona tutor", "/persona save", "/persona rename tutor", "/persona delete tutor"]),
    ],
)
def test_what_may_follow_a_command(typed: str, found: list[str], tmp_path: Path) -> None:
    session = kept_in(tmp_path, "[prompts]\n'two words' = 'x'\n")
    front = PlainChat(session, ChatOptions(), {"tutor": "Explain."})
    front.texts.read()
    assert list(front.commands.completions(typed)) == found
    session.close()


def test_an_error_is_a_line_and_the_chat_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = FakeSession()
    session.error = AppError("engine error", "no luck")
    assert chat(monkeypatch, session, "Hello", "/nothing", "/view tokens", "/ctx x", "@/no/such.txt what?") == 0
    err = capsys.readouterr().err.splitlines()
    assert all(line.startswith("specee-chat: ") for line in err) and len(err) == 5
    assert "no luck" in err[0] and "/nothing" in err[1] and "/no/such.txt" in err[4]


def test_a_thought_stands_apart(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    session = FakeSession("think: hm well say: Yes indeed")
    chat(monkeypatch, session, "Really?")
    thought, _, answer = capsys.readouterr().out.partition("\n\n")
    assert "hm" in thought and answer.strip() == "Yes indeed"


def test_a_chat_that_goes_on_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "h.sqlite")
    chat(monkeypatch, FakeSession(store=store), "One", "Two", "Three")
    capsys.readouterr()
    session = FakeSession(store=store)
    session.resume(1)
    chat(monkeypatch, session, "/earlier")
    out, err = capsys.readouterr()
    assert out.startswith(">>> Three\n**Bold**") and out.count(">>> ") == 4 and "4 turns before this" in err
    store.close()


@pytest.mark.parametrize(
    ("typed", "found"),
    [("see @no", ["see @notes.txt"]), ("@d", ["@docs/"]), ("@docs/", ["@docs/a.md"]), ("mail@no", []), ("@x", [])],
)
def test_file_names_are_completed(
    typed: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for name in ("notes.txt", "docs/a.md", ".hidden"):
        (tmp_path / name).touch()
    lines = LineInput(lambda text: {})
    got = []
    while (completed := lines._complete(typed, len(got))) is not None:
        got.append(completed)
    assert got == found


# ---- in a terminal ---------------------------------------------------------------------------------------------------


PROGRAM = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from fake_session import FakeSession
from specee.app.cli import streams
streams.prepare()
from specee.app.options import ChatOptions
from specee.app.plain.chat import PlainChat
import threading, time
import os
from specee.app.options import LoadOptions
session = FakeSession(sys.argv[1], load=LoadOptions(data_dir=os.environ.get("FOLDER")))
class Slow:
    def acquire(self, *a, **k): time.sleep(0.05); return True
    def release(self): pass
session.gate = Slow()
code = PlainChat(session, ChatOptions(), {}).run()
session.close()
streams.finish()
print([text for text, _ in session.sent], code)
"""


class Pty:
    def __init__(self, answer: str, **variables: str) -> None:
        self.fd, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "PYTHON_HISTORY": os.devnull, **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), answer],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait(self, what: str, times: int = 1) -> None:
        end = time.monotonic() + 60
        while self.shown.count(what) < times:
            assert time.monotonic() < end, self.shown
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.fd, 1 << 16).decode(errors="replace")
                except OSError:  # it has ended
                    assert what in self.shown, self.shown
                    return

    def close(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.fd)


def ask(terminal: Pty) -> None:
    """A question whose answer is on its way."""
    terminal.wait(">>> ")
    terminal.type("Hello\r")
    terminal.wait("word word")


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(request: pytest.FixtureRequest) -> Iterator[Pty]:
    made = Pty(*getattr(request, "param", ("**Bold** words here",)))
    yield made
    made.close()


def test_no_control_sequence_but_colours(terminal: Pty) -> None:
    terminal.wait(">>> ")
    terminal.type("Hello\r")
    terminal.wait("here")
    terminal.wait(">>> ", 2)
    terminal.type("\x04")
    terminal.wait("['Hello'] 0")
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;]*m", "", terminal.shown)


@pytest.fixture
def terminal_of_file(tmp_path: Path) -> Iterator[Pty]:
    """A chat with a file of its own."""
    text = '[prompts]\nlines = "one\\ntwo"\nslash = "/usr"\n[personas]\ntutor = "Explain."\n'
    (tmp_path / "config.toml").write_text(text)
    made = Pty("**Bold** words here", FOLDER=str(tmp_path))
    yield made
    made.close()


def test_commands_send_no_control_sequence_but_colours(terminal_of_file: Pty) -> None:
    terminal = terminal_of_file
    terminal.wait(">>> ")
    commands = ["/settings", "/settings seed", "/settings seed 4 --keep", "/prompt", "/prompt save new Text", "/help"]
    commands += ["/prompt rename new old", "/prompt delete old", "/persona", "/persona tutor", "/persona save me"]
    commands += ["/persona delete me", "/prompt slash"]
    for prompts, command in enumerate(commands, 2):
        terminal.type(f"{command}\r")
        terminal.wait(">>> ", prompts)
    terminal.wait(">>>  /usr")
    terminal.type("\r")
    terminal.wait("here")
    terminal.wait(">>> ", prompts + 1)
    terminal.type("\x04")
    terminal.wait("['/usr'] 0")
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;]*m", "", terminal.shown)
    assert "old is deleted" in terminal.shown and "me is deleted" in terminal.shown


def test_a_saved_prompt_stands_in_the_prompt_with_all_its_lines(terminal_of_file: Pty) -> None:
    terminal = terminal_of_file
    terminal.wait(">>> ")
    terminal.type("/prompt lines\r")
    terminal.wait("two")
    terminal.type(" three\r")
    terminal.wait("here")
    terminal.wait(">>> ", 3)
    terminal.type("/quit\r")
    terminal.wait("['one\\ntwo three'] 0")


def test_a_long_saved_prompt_waits_for_enter(terminal_of_file: Pty, tmp_path: Path) -> None:
    terminal = terminal_of_file
    (tmp_path / "config.toml").write_text(f"[prompts]\nlong = '{'x' * 20_000}'\n")
    terminal.wait(">>> ")
    terminal.type("/prompt long\r")
    terminal.wait("20000 characters are there; Enter sends them, Ctrl+C drops them")
    terminal.wait("... ")
    terminal.type("\r")
    terminal.wait("here")
    terminal.wait(">>> ", 2)
    terminal.type("/quit\r")
    terminal.wait(f"['{'x' * 20_000}'] 0")


def test_a_command_that_failed_comes_back_to_be_changed(terminal: Pty) -> None:
    terminal.wait(">>> ")
    terminal.type("/settings seed x\r")
    terminal.wait(">>> /settings seed x", 2)
    assert "\x1b" not in terminal.shown
    terminal.type("\x7f5\r")
    terminal.wait("[seed 5 from the next answer on]")


@pytest.mark.parametrize("terminal", [("word " * 30,)], indirect=True)
def test_a_command_that_failed_does_not_come_before_what_is_typed_already(terminal: Pty) -> None:
    ask(terminal)
    terminal.type("/set sed 3\r/set top_k 5\r/quit\r")
    terminal.wait("['Hello'] 0")
    assert "no such parameter: 'sed'" in terminal.shown and "top_k 5 from the next" in terminal.shown


def test_pasted_lines_are_one_question(terminal: Pty) -> None:
    terminal.wait(">>> ")
    terminal.type("one\rtwo\rthree")
    terminal.wait("3 lines pasted")
    terminal.type("\r")
    terminal.wait("here")
    terminal.wait(">>> ", 2)
    terminal.type("/quit\r")
    terminal.wait("['one\\ntwo\\nthree'] 0")


@pytest.mark.parametrize("terminal", [("word " * 400,)], indirect=True)
def test_ctrl_c_stops_the_answer_and_then_only_the_line(terminal: Pty) -> None:
    ask(terminal)
    terminal.type("\x03")
    terminal.wait("stopped; /continue goes on")
    terminal.wait(">>> ", 2)
    terminal.type("half a quest")
    terminal.wait("half a quest")
    time.sleep(0.2)  # a signal between that and the wait for the next key would be noticed with that key
    terminal.type("\x03")
    terminal.wait("[Ctrl+D quits]")
    terminal.wait(">>> ", 3)
    terminal.type("\x04")
    terminal.wait("['Hello'] 0")


@pytest.mark.parametrize("terminal", [("word " * 60,)], indirect=True)
def test_a_long_line_typed_during_an_answer_is_whole(terminal: Pty) -> None:
    ask(terminal)
    terminal.type("z" * 6000 + "\r")
    terminal.wait(">>> ", 3)
    terminal.type("/quit\r")
    terminal.wait(f"['Hello', '{'z' * 6000}'] 0")


@pytest.mark.parametrize("terminal", [("word " * 400,)], indirect=True)
def test_ctrl_c_during_an_answer_drops_nothing_typed(terminal: Pty) -> None:
    ask(terminal)
    terminal.type("typed ahead")
    terminal.wait("typed ahead")
    terminal.type("\x03")
    terminal.wait(">>> typed ahead")
    terminal.type("\x15/quit\r")
    terminal.wait("['Hello'] 0")


@pytest.mark.parametrize("terminal", [("word " * 60,)], indirect=True)
def test_lines_typed_during_an_answer_are_texts_of_their_own(terminal: Pty) -> None:
    ask(terminal)
    terminal.type("/set seed 3\r/set top_k 5\r/quit\r")
    terminal.wait("['Hello'] 0")
    assert "seed 3 from the next" in terminal.shown and "top_k 5 from the next" in terminal.shown


def test_bytes_that_are_no_text_are_read_as_on_the_screen(terminal: Pty) -> None:
    terminal.wait(">>> ")
    os.write(terminal.fd, b"a\xffb\r")
    terminal.wait("here")
    terminal.type("\x04")
    terminal.wait("['aÿb'] 0")
