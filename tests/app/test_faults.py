"""Programs and engines that are killed at any moment: no turn is lost, and at most half a second of an answer."""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import fault_engine
import pytest
from real_engine import NO_END, missing_model

from specee.app.chat.history.store import Store
from specee.app.chat.session import Session
from specee.app.engine.client import EngineClient, EngineLostError, Silence
from specee.app.engine.process import EngineProcess
from specee.app.engine.protocol import ChatEvent, Message, PromptProgress, Started
from specee.app.options import ChatOptions, LoadOptions, Sampling

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
T = TypeVar("T")
KILLS, AT_ONCE = 60, 4  # of each kind, so many side by side
LOST_SECONDS = 0.5
REAL_KILLS = int(os.environ.get("SPECEE_TEST_KILLS", "2"))  # of each kind, on the embedded model
FAULT_APP = Path(__file__).parents[1] / "fault_app.py"


NO_MODEL = missing_model()


def numbers(content: str) -> list[int]:
    return [int(word) for word in content.split(" ")[:-1]]


def kill_programs(data: Path, engine: str, kills: int, chance: random.Random) -> list[float]:
    """Kills a program that answers, again and again; returns how many seconds of each answer were lost."""
    asked = ["question 0"]
    lost: list[float] = []
    for _ in range(kills):
        program = subprocess.Popen(
            [sys.executable, str(FAULT_APP), str(data), engine],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert program.stdout is not None
        lines = [program.stdout.readline()]
        time.sleep(chance.uniform(0.0, 0.8))
        killed = time.monotonic()
        program.kill()
        lines += program.stdout.read().splitlines(keepends=True)
        program.wait()
        program.stdout.close()
        whole = [line for line in lines if line.endswith("\n")]  # the last one may be cut by the kill
        shown = [(float(at), int(turn), int(length)) for at, turn, length in map(str.split, whole)]

        store = Store(data / "history.sqlite")
        assert store.check() == "ok"
        path = store.branch(store.chats()[0].id)
        store.close()
        last = path[-1]
        if last.id == shown[-1][1]:
            answer = [(at, length) for at, turn, length in shown if turn == last.id]
            kept = [at for at, length in answer if length <= len(last.content)]
            lost.append(killed - max(kept, default=answer[0][0]))
        else:  # that answer was over, and of the next one nothing had been shown
            assert next(turn for turn in path if turn.id == shown[-1][1]).state == "complete"
            lost.append(0.0)
        if engine == "fake" and last.role == "assistant":  # else it was killed before the answer had a place
            assert numbers(last.content) == list(range(len(numbers(last.content)))), "the answer has no gap"
        questions = [turn.content for turn in path if turn.role == "user"]
        assert questions[: len(asked)] == asked
        asked = questions
    print(f"of an answer {max(lost):.3f} s were lost at most, {statistics.median(lost):.3f} s in the middle of {kills}")
    return lost


def side_by_side(work: Callable[[int], T]) -> list[T]:
    """What each has found; when one failed, its error."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(work, range(AT_ONCE)))


def test_a_killed_program_loses_at_most_half_a_second(tmp_path: Path) -> None:
    each = KILLS // AT_ONCE
    found = side_by_side(lambda i: kill_programs(tmp_path / str(i), "fake", each, random.Random(5 + i)))
    lost = [seconds for some in found for seconds in some]
    assert len(lost) == KILLS and max(lost) <= LOST_SECONDS


@pytest.mark.skipif(NO_MODEL is not None, reason=f"no model to kill: {NO_MODEL}")
def test_kills_while_the_embedded_model_answers(tmp_path: Path) -> None:
    chance = random.Random(7)
    lost = kill_programs(tmp_path, "real", REAL_KILLS, chance)
    assert max(lost) <= LOST_SECONDS

    store = Store(tmp_path / "history.sqlite")
    session = Session(LoadOptions(data_dir=str(tmp_path)), store=store)
    session.resume(store.chats()[0].id)
    endless = ChatOptions(sampling=Sampling(logit_bias=tuple(NO_END.items())))
    for _ in range(REAL_KILLS):
        shown, timer = "", None
        with pytest.raises(EngineLostError, match="SIGKILL"):
            for event in session.send("Count slowly from one to two hundred.", endless):
                if isinstance(event, ChatEvent):
                    if timer is None:
                        pid = session._client._engine.link.pid  # type: ignore[union-attr]
                        timer = threading.Timer(chance.uniform(0.0, 0.3), os.kill, (pid, signal.SIGKILL))
                        timer.start()
                    shown += event.text if event.state == "verified" else ""
        assert timer is not None
        timer.join()
        assert session.branch[-1].content == shown and session.branch[-1].state == "interrupted"
        assert store.check() == "ok"
    session.close()
    store.close()


def test_a_killed_engine_loses_nothing_that_was_shown(tmp_path: Path) -> None:
    side_by_side(lambda i: kill_engines(tmp_path / str(i), KILLS // AT_ONCE, random.Random(6 + i)))


def kill_engines(data: Path, kills: int, chance: random.Random) -> None:
    """Kills the engine of a program that answers, again and again: the answers have all that was shown."""
    store = Store(data / "history.sqlite")
    session = Session(LoadOptions(data_dir=str(data)), start=fault_engine.start, store=store)
    for number in range(kills):
        options = ChatOptions()
        events = session.continue_answer(options) if number % 2 else session.send(f"question {number}", options)
        shown: list[str] = []
        with pytest.raises(EngineLostError, match="SIGKILL"):
            for event in events:
                if isinstance(event, ChatEvent):
                    if not shown:
                        shown.append(session.branch[-1].content)
                        pid = session._client._engine.link.pid  # type: ignore[union-attr]
                        timer = threading.Timer(chance.uniform(0.0, 0.3), os.kill, (pid, signal.SIGKILL))
                        timer.start()
                    shown.append(event.text)
        timer.join()
        assert session.branch[-1].content == "".join(shown) and session.branch[-1].state == "interrupted"
        assert store.check() == "ok"
    assert [turn.content for turn in session.branch if turn.role == "user"] == [
        f"question {n}" for n in range(0, kills, 2)
    ]
    session.close()
    store.close()


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def is_there(pid: int) -> bool:
    """Whether the process runs or is stopped: one that has ended may still wait to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGINT])
def test_a_program_that_ends_leaves_no_process(tmp_path: Path, number: signal.Signals, stopped: bool) -> None:
    program = subprocess.Popen(
        [sys.executable, str(FAULT_APP), str(tmp_path), "fake"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert program.stdout is not None
    program.stdout.readline()
    (engine,) = children(program.pid)
    if stopped:
        os.kill(engine, signal.SIGSTOP)
    program.send_signal(number)
    program.stdout.read()
    program.wait()
    program.stdout.close()
    end = time.monotonic() + 30
    while is_there(engine) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_there(engine)


@pytest.mark.skipif(NO_MODEL is not None, reason=f"no model to stop: {NO_MODEL}")
def test_an_engine_that_was_stopped_is_ended_and_the_next_one_answers(tmp_path: Path) -> None:
    """While it is idle, while it reads a prompt, and while it answers."""
    client = EngineClient(
        LoadOptions(n_ctx=2048, data_dir=str(tmp_path)), lambda load: EngineProcess(tmp_path, silent_seconds=2)
    )
    brief = ChatOptions(max_tokens=8)
    endless = ChatOptions(sampling=Sampling(logit_bias=tuple(NO_END.items())))  # else it may be over before it stops

    def ask(text: str, stop_at: type | None = None) -> str:
        answer = ""
        for event in client.generate((Message("user", text),), brief if stop_at is None else endless):
            if stop_at is not None and isinstance(event, stop_at):
                os.kill(client._engine.link.pid, signal.SIGSTOP)  # type: ignore[union-attr]
                stop_at = None
            answer += event.text if isinstance(event, ChatEvent) and event.state == "verified" else ""
        return answer

    assert ask("Hi")
    os.kill(client._engine.link.pid, signal.SIGSTOP)  # type: ignore[union-attr]
    assert ask("Hi"), "answered by the next engine"
    for moment in (PromptProgress, Started):
        with pytest.raises(EngineLostError, match="no sign of life"):
            ask("word " * 1000, moment)
        assert ask("Hi")
    client.close()


def test_a_stopped_engine_is_reported_and_can_be_ended(tmp_path: Path) -> None:
    session = Session(LoadOptions(data_dir=str(tmp_path)), start=fault_engine.start)
    session._client.silence_seconds = 0.2
    stopped = False
    with pytest.raises(EngineLostError):
        for event in session.send("x", ChatOptions()):
            if isinstance(event, ChatEvent) and event.index == 5:
                os.kill(session._client._engine.link.pid, signal.SIGSTOP)  # type: ignore[union-attr]
                stopped = True
            elif isinstance(event, Silence) and stopped:  # before, it may be slow to start
                session.kill()
    assert numbers(session.branch[-1].content)[:6] == list(range(6))
    session.close()


FATAL = (signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM)


def signal_at(session: Session, phase: str, number: int) -> str:
    """A question, with a signal to the engine before it, while its prompt is read, or in its answer; what came."""
    link = session._client._engine
    assert link is not None and isinstance(link.link, EngineProcess)
    if phase == "idle":
        os.kill(link.link.pid, number)
        time.sleep(0.2)
    text = ""
    fatal = phase != "idle" and number in FATAL  # an answer that is over before it is killed would not be lost
    options = ChatOptions(sampling=Sampling(logit_bias=tuple(NO_END.items()))) if fatal else ChatOptions(max_tokens=6)
    for event in session.send("List the seas of the world. " * (60 if phase == "prompt" else 1), options):
        text += event.text if isinstance(event, ChatEvent) else ""
        begun = isinstance(event, ChatEvent if phase == "answer" else PromptProgress)
        if phase != "idle" and begun:
            phase = "idle"  # once
            os.kill(link.link.pid, number)
    return text


@pytest.mark.skipif(NO_MODEL is not None, reason=str(NO_MODEL))
def test_signals_to_the_engine_alone(tmp_path: Path) -> None:
    """Those that ask a program for something mean nothing to it; those of a crash are told as one."""
    session = Session(LoadOptions(data_dir=str(tmp_path)), store=Store())
    try:
        list(session.open())
        engine = session._client._engine
        for phase in ("idle", "prompt", "answer"):
            for name in ("SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGALRM"):
                session.new()
                assert signal_at(session, phase, getattr(signal, name)), (name, phase)
                assert session._client._engine is engine, (name, phase)
            for number in FATAL:
                list(session.open())
                session.new()
                if phase == "idle":
                    assert signal_at(session, phase, number), "another one answers"
                    continue
                with pytest.raises(EngineLostError, match=number.name) as lost:
                    signal_at(session, phase, number)
                assert lost.value.line.startswith("engine crashed: signal")
                assert session.branch[-1].state == "interrupted"
            list(session.open())
            engine = session._client._engine
    finally:
        session.close()
    assert "Traceback" not in (tmp_path / "logs" / "engine.log").read_text(errors="replace")
