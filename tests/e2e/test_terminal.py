"""The whole program in a real terminal (tmux), with the embedded model."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_engine import ENDLESS, LONG_STORY, missing_model

from specee.models import embedded

MISSING = missing_model() if shutil.which("tmux") else "tmux is not installed"
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"no terminal to try: {MISSING}")


class Terminal:
    """A shell in tmux, on a server of its own."""

    def __init__(self, data: Path, width: int, height: int) -> None:
        self.server = f"specee-test-{uuid.uuid4().hex[:8]}"
        self.data, self.width, self.height = data, width, height
        shell = "env PS1='shell> ' sh"
        self.tmux("new-session", "-d", "-x", str(width), "-y", str(height), shell)

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self.server, "-f", "/dev/null", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def wait(self, condition: Callable[[str], bool], seconds: float = 120) -> str:
        end = time.monotonic() + seconds
        while True:
            shown = self.screen()
            if condition(shown):
                return shown
            assert time.monotonic() < end, f"the screen still shows:\n{shown}"
            time.sleep(0.1)

    def start(self, *arguments: str, locale: str = "C.UTF-8") -> None:
        names = ("PYTHONPATH", "SPECEE_LIB_DIR", "SPECEE_EMBEDDED_DIR")
        settings = [f"{n}={shlex.quote(os.environ[n])}" for n in names if n in os.environ]
        settings += [f"SPECEE_DATA_DIR={shlex.quote(str(self.data))}", f"LC_ALL={locale}"]
        settings += [f"HF_HOME={shlex.quote(str(self.data.parent / 'hf'))}"]
        program = [sys.executable, "-c", "from specee.app.cli.main import main; main()", *arguments]
        # the shell may start slowly: what is typed before its prompt stands would be shown twice
        self.wait(lambda s: "shell>" in s)
        # and the pane may get its size late
        wanted = f"{self.height} {self.width}"
        self.type(f"until test \"$(stty size)\" = '{wanted}'; do sleep 0.1; done; echo siz''ed")
        self.press("Enter")
        self.wait(lambda s: "sized" in s)
        self.type(" ".join([*settings, shlex.join(program)]))
        self.press("Enter")

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self.server, "kill-server"], capture_output=True)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path / "data", 80, 24)
    yield made
    made.close()


def answered(shown: str) -> bool:
    return "skip" in shown and "tokens/s" in shown and "answering" not in shown and "reading" not in shown


def test_a_key_asks_a_question_in_a_terminal_without_unicode(terminal: Terminal) -> None:
    terminal.start("--max-tokens", "16", "--policy", "dense", "--offline", locale="C")
    assert terminal.wait(lambda s: "# " in s and "Alt+2 Write" in s and "Ask something" in s).isascii()
    terminal.press("M-2")
    shown = terminal.wait(lambda s: answered(s) and "about rain." in s)
    assert shown.isascii() and "Alt+2" not in shown and "#" in shown and "|_____" in shown


def test_two_turns_a_stop_and_a_crash(terminal: Terminal) -> None:
    terminal.start("--max-tokens", "16", "--policy", "dense", "--temperature", "0")
    terminal.wait(lambda s: "smollm2-135m" in s and "Ask something" in s)
    terminal.type("What is the capital of France?")
    terminal.press("Enter")
    shown = terminal.wait(lambda s: answered(s) and "Paris" in s)
    assert "no token skips layers" in shown and "█" in shown
    terminal.type("And of Italy?")
    terminal.press("Enter")
    terminal.wait(lambda s: "And of Italy?" in s and answered(s))
    assert "Traceback" not in terminal.screen()

    _kill_engine(terminal)
    terminal.type("Hello")
    terminal.press("Enter")
    # an idle engine that died is replaced silently; the conversation continues
    terminal.wait(lambda s: "Hello" in s and answered(s))
    time.sleep(0.5)

    terminal.press("C-q")  # also while it answers, where C-c would only stop that
    shown = terminal.wait(lambda s: "shell>" in s and "Ask something" not in s)
    terminal.type("echo back $?")
    terminal.press("Enter")
    terminal.wait(lambda s: "back 0" in s)
    assert _engines(terminal) == []


def test_escape_stops_a_long_answer(terminal: Terminal) -> None:
    terminal.start(*ENDLESS)
    terminal.wait(lambda s: "smollm2-135m" in s and "Ask something" in s)
    terminal.type(LONG_STORY)
    terminal.press("Enter")
    terminal.wait(lambda s: "tokens/s" in s)
    terminal.press("Escape")
    before = terminal.wait(answered)
    time.sleep(1)
    assert terminal.screen() == before
    _quit(terminal)


def test_a_chat_is_continued_after_the_program_was_killed(terminal: Terminal) -> None:
    terminal.start(*ENDLESS)
    terminal.wait(lambda s: "smollm2-135m" in s and "Ask something" in s)
    terminal.type(LONG_STORY)
    terminal.press("Enter")
    terminal.wait(lambda s: "answering" in s and "tokens/s" in s)
    time.sleep(1)
    for pid in _programs(terminal):
        os.kill(pid, 9)
    # the engine may have left the screen before it was killed too, and with it what the shell had written there
    terminal.wait(lambda s: "Killed" in s or "was killed" in s)
    again = Terminal(terminal.data, 100, 30)
    try:
        again.start("-c", "--max-tokens", "20")
        again.wait(lambda s: "interrupted: /continue goes on" in s and "smollm2-135m" in s)
        again.type("/continue")
        again.press("Enter")
        assert "Traceback" not in again.wait(lambda s: "interrupted" not in s and answered(s))
        again.type("/search very long story")
        again.press("Enter")
        again.wait(lambda s: "Search" not in s and "Write a very" in s)
        _quit(again)
    finally:
        again.close()


def test_regenerate_copy_search_quit_and_resume(terminal: Terminal) -> None:
    terminal.tmux("set-option", "-g", "set-clipboard", "on")
    options = ("--max-tokens", "12", "--policy", "dense", "--temperature", "0")
    terminal.start(*options)
    terminal.wait(lambda s: "smollm2-135m" in s and "Ask something" in s)
    terminal.type("What is the capital of France?")
    terminal.press("Enter")
    terminal.wait(lambda s: answered(s) and "Paris" in s)
    terminal.press("C-r")
    terminal.wait(lambda s: "branch 2 of 2" in s and answered(s))
    terminal.press("C-y")
    terminal.wait(lambda s: "copied" in s)
    assert "Paris" in terminal.tmux("show-buffer")
    terminal.type("/new")
    terminal.press("Enter")
    terminal.wait(lambda s: "a new chat" in s and "Paris" not in s)
    terminal.type("/search capital fran")
    terminal.press("Enter")
    terminal.wait(lambda s: "Ask something" in s and "capital fran" in s and "What is the capital" in s)
    time.sleep(0.5)  # the list of chats stood there first
    terminal.press("Enter")
    time.sleep(0.5)
    terminal.press("Enter")
    terminal.wait(lambda s: "branch 2 of 2" in s and "Paris" in s)
    _quit(terminal)
    for again in (("-c",), ("--resume", "1")):
        terminal.press("C-l")
        terminal.start(*again, *options)
        terminal.wait(lambda s: "branch 2 of 2" in s and "Paris" in s and "smollm2-135m" in s)
        _quit(terminal)


def test_escape_stops_while_the_prompt_is_read(terminal: Terminal) -> None:
    (terminal.data.parent / "long.txt").write_text("The sea is wide and blue. " * 500)
    terminal.start("--max-tokens", "20", "--policy", "dense")
    terminal.wait(lambda s: "smollm2-135m" in s and "Ask something" in s)
    terminal.type(f"Summarize @{terminal.data.parent}/long.txt")
    terminal.press("Enter")
    terminal.wait(lambda s: "reading" in s)
    terminal.press("Escape")
    terminal.wait(lambda s: "reading" not in s and "answering" not in s, seconds=5)
    _quit(terminal)


def test_a_paste_an_editor_that_is_missing_ctrl_z_and_ctrl_d(terminal: Terminal) -> None:
    terminal.start("--max-tokens", "12", "--policy", "dense")
    terminal.wait(lambda s: "smollm2-135m" in s and "Ask something" in s)
    terminal.tmux("set-buffer", "/usr/bin/one\ntwo\nthree")
    terminal.tmux("paste-buffer")  # without brackets: each line end is an Enter
    shown = terminal.wait(lambda s: "three" in s)
    assert "/usr/bin/one" in shown and "two" in shown and "answering" not in shown
    terminal.press("C-z")
    terminal.wait(lambda s: "Stopped" in s and "Ask something" not in s)
    terminal.type("export EDITOR=no-such-editor; fg")
    terminal.press("Enter")
    terminal.wait(lambda s: "/usr/bin/one" in s and "smollm2-135m" in s and "shell>" not in s)
    terminal.press("Enter")
    terminal.wait(answered)
    terminal.press("C-d")
    terminal.wait(lambda s: "shell>" in s and "Ask something" not in s)
    terminal.type("echo back $?")
    terminal.press("Enter")
    terminal.wait(lambda s: "back 0" in s)
    terminal.start("-c")
    terminal.wait(lambda s: "smollm2-135m" in s and "Ask something" in s)
    terminal.type("my text")
    terminal.press("C-g")
    shown = terminal.wait(lambda s: "no editor: no-such-editor" in s)
    assert "my text" in shown and "Traceback" not in shown
    _quit(terminal)


def _of(terminal: Terminal) -> int:
    """The process of the screen."""
    pane = terminal.tmux("display-message", "-p", "#{pane_pid}").strip()
    done = subprocess.run(["pgrep", "-P", pane], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def test_a_stop_from_elsewhere_comes_back_drawn(terminal: Terminal) -> None:
    terminal.start()
    terminal.wait(lambda s: "smollm2-135m" in s and "Ask something" in s)
    terminal.type("half a question")
    terminal.wait(lambda s: "half a question" in s)
    process = _of(terminal)
    os.kill(process, signal.SIGSTOP)
    terminal.wait(lambda s: "shell>" in s)
    terminal.type("clear; echo wri''tten over")
    terminal.press("C-j")  # the terminal is as the screen had it
    terminal.wait(lambda s: "written over" in s and "half a question" not in s)
    os.kill(process, signal.SIGCONT)  # in the background it draws nothing, and takes no keys
    time.sleep(1)
    terminal.type("echo sti''ll the shell")
    terminal.press("C-j")
    terminal.wait(lambda s: "still the shell" in s)
    for _ in range(2):
        terminal.type("fg")
        terminal.press("C-j")
        terminal.wait(lambda s: "half a question" in s and "written over" not in s and "shell>" not in s)
        terminal.type("!")
        terminal.wait(lambda s: "half a question!" in s)
        terminal.press("BSpace")
        os.kill(process, signal.SIGCONT)  # without a stop
        time.sleep(0.5)
        terminal.press("C-z")
        terminal.wait(lambda s: "shell>" in s and "half a question" not in s)
    terminal.type("fg")
    terminal.press("C-j")
    terminal.wait(lambda s: "half a question" in s)
    terminal.press("C-c")
    terminal.wait(lambda s: "shell>" in s and "half a question" not in s)
    terminal.type("echo back $?")
    terminal.press("C-j")
    terminal.wait(lambda s: "back 0" in s)


def test_no_byte_and_no_paste_ends_it(terminal: Terminal) -> None:
    terminal.start()
    terminal.wait(lambda s: "smollm2-135m" in s and "Ask something" in s)
    terminal.type("caf")
    terminal.tmux("send-keys", "-H", "e9", "20", "9b", "20", "ff")
    terminal.type(" and on")
    terminal.wait(lambda s: "café \u203a ÿ and on" in s)
    terminal.press("C-u")
    terminal.wait(lambda s: "and on" not in s)  # a paste may overtake a key that is bound above the prompt
    terminal.tmux("set-buffer", "\x1b[31mred\x1b[0m [ok]\x03\x07\x11\nsecond line")
    terminal.tmux("paste-buffer", "-p")
    terminal.wait(lambda s: "[31mred[0m [ok]" in s and "second line" in s)
    terminal.press("C-u", "C-u", "C-u")
    terminal.wait(lambda s: "second line" not in s and "[31mred" not in s)
    terminal.tmux("set-buffer", "no marks\x03 stand\x07 around this\x11 text")
    terminal.tmux("paste-buffer")
    terminal.wait(lambda s: "no marks stand around this text" in s)
    assert "Traceback" not in terminal.screen()
    _quit(terminal)


def test_a_title_steers_no_terminal(terminal: Terminal) -> None:
    from specee.app.chat.history.store import Store

    terminal.data.mkdir()
    store = Store(terminal.data / "history.sqlite")
    chat = store.new_chat("first\x1b]2;RENAMED\x07\x1b[2Jline", None, {})
    store.add_question(chat.id, None, "first\x1b]2;RENAMED\x07\x1b[2Jline")
    store.close()
    terminal.start("-c")
    terminal.wait(lambda s: "␛[2Jline" in s and "smollm2-135m" in s)
    terminal.press("C-b")
    terminal.wait(lambda s: "Search all chats" in s and "first␛" in s)
    assert "RENAMED" not in terminal.tmux("display-message", "-p", "#{pane_title}")
    _quit(terminal)


def test_the_first_start_suggests_models_until_a_key_is_pressed(terminal: Terminal) -> None:
    terminal.start("--max-tokens", "8", "--policy", "dense")
    shown = terminal.wait(lambda s: "Models that suit this PC" in s and "F5" in s and "other keys" in s)
    assert "Ask something" in shown and "tokens/s" in shown
    terminal.type("Hello")
    terminal.wait(lambda s: "Models that suit" not in s and "Hello" in s)
    terminal.press("Enter")
    terminal.wait(answered)
    _quit(terminal)
    terminal.press("C-l")
    terminal.start()
    terminal.wait(lambda s: "smollm2-135m" in s and "Ask something" in s)
    time.sleep(3)
    assert "Models that suit" not in terminal.screen()
    _quit(terminal)


def test_another_model_is_chosen_from_the_list_and_reads_the_chat(terminal: Terminal) -> None:
    folder = terminal.data.parent / "models"
    folder.mkdir()
    for name in ("first.gguf", "second.gguf"):
        shutil.copy(str(embedded.path()), folder / name)
    terminal.start(
        "--model", str(folder / "first.gguf"), "--max-tokens", "12", "--policy", "dense", "--temperature", "0"
    )
    terminal.wait(lambda s: "first" in s and "Ask something" in s)
    terminal.type("What is the capital of France?")
    terminal.press("Enter")
    terminal.wait(lambda s: answered(s) and "Paris" in s)
    terminal.type("And of")
    terminal.press("F3")
    terminal.wait(lambda s: "> first.gguf" in s and "second.gguf" in s and "Ask something" not in s)
    terminal.type("second")
    terminal.wait(lambda s: "second.gguf" in s and "first.gguf" not in s)
    terminal.press("Tab")
    terminal.wait(lambda s: "architecture" in s and "llama" in s)
    terminal.press("Enter")
    terminal.wait(lambda s: "second answers from here on" in s and "Paris" in s and "And of" in s)
    terminal.type(" Italy?")
    terminal.press("Enter")
    shown = terminal.wait(lambda s: "And of Italy?" in s and answered(s) and "answers from here on" in s)
    assert "second" in shown and "Traceback" not in shown
    _quit(terminal)


def test_a_wrong_model_is_a_line_before_the_screen_starts(terminal: Terminal) -> None:
    terminal.start("--model", "no-such.gguf")
    shown = terminal.wait(lambda s: "shell>" in s.partition("model not found")[2])
    assert "Traceback" not in shown


def _quit(terminal: Terminal) -> None:
    terminal.press("C-q")
    terminal.wait(lambda s: "shell>" in s and "Ask something" not in s)


def _programs(terminal: Terminal) -> list[int]:
    """The programs that this terminal's shell runs."""
    shell = int(terminal.tmux("display-message", "-p", "#{pane_pid}"))
    return [pid for pid, parent in _parents().items() if parent == shell]


def _engines(terminal: Terminal) -> list[int]:
    """The engine processes under this terminal's shell."""
    programs = _programs(terminal)
    return [pid for pid, parent in _parents().items() if parent in programs]


def _parents() -> dict[int, int]:
    """The parent of each process that runs."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    return parents


def _kill_engine(terminal: Terminal) -> None:
    found = _engines(terminal)
    assert found, "no engine process"
    for pid in found:
        os.kill(pid, 9)
    time.sleep(0.5)
