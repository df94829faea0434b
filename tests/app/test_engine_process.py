"""The pipe and the process at its other end, without a model."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import fault_engine
import pytest

from specee.app.engine import heartbeat
from specee.app.engine.heartbeat import Heartbeat, Watchdog
from specee.app.engine.process import EngineProcess
from specee.app.engine.protocol import (
    Cancel,
    Failed,
    Generate,
    Load,
    Message,
    ModelLoaded,
)
from specee.app.options import ChatOptions, LoadOptions, PolicyChoice, parse_threshold

WAIT = 60.0


def test_a_failed_load_is_reported_and_logged(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path / "logs")
    engine.send(Load(LoadOptions(model="no/such.gguf", data_dir=str(tmp_path))))
    failure = engine.receive(WAIT)
    assert isinstance(failure, Failed) and failure.fatal and failure.exit_code == 3
    engine.close()
    assert not engine.alive
    assert "no/such.gguf" in engine.log_path.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_does_not_reach_it_and_a_crash_is_reported(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path)
    assert os.getsid(engine.pid) != os.getsid(0)
    os.kill(engine.pid, signal.SIGILL)
    failure = engine.receive(WAIT)
    assert isinstance(failure, Failed) and failure.fatal
    assert "SIGILL" in failure.message and str(engine.log_path) in failure.message
    engine.send(Load(LoadOptions()))  # to nobody: no error
    engine.close()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("/a/b.cpp:12: GGML_ASSERT(n > 0) failed", "(GGML_ASSERT(n > 0) failed)"),
        ("terminate called after throwing\n  what():  no\x1b[2J room", "(no�[2J room)"),
        ("load: all is well", None),
    ],
)
def test_why_a_process_gave_up_is_told(tmp_path: Path, line: str, shown: str | None) -> None:
    (tmp_path / "engine.log").write_text("what(): of another process\n")
    program = f"import os, sys; sys.stderr.write({line!r} + chr(10)); sys.stderr.flush(); os.abort()"
    engine = EngineProcess(tmp_path, program.replace("{", "{{").replace("}", "}}"))
    failure = engine.receive(WAIT)
    engine.close()
    assert isinstance(failure, Failed) and failure.message.isprintable()
    assert failure.message.startswith(f"signal 6 (SIGABRT){f' {shown}' if shown else ''}; try again")


def test_a_log_does_not_grow_for_ever(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"x" * (2 << 20))
    engine = EngineProcess(tmp_path)
    engine.close()
    assert log.stat().st_size < 1 << 20 and (tmp_path / "engine.old.log").exists()


@pytest.mark.parametrize(
    "spec",
    [
        "auto",
        "dense",
        "specee@0.5",
        "specee:margin@0.3",
        "specee:complete",
        "exact:margin",
        "tree:typical",
        "chain:early",
    ],
)
def test_a_policy_in_short_reads_back(spec: str) -> None:
    assert PolicyChoice.parse(spec).label == spec


def test_the_calibrated_threshold_is_none() -> None:
    assert parse_threshold("calibrated") is None and parse_threshold("0.5") == 0.5
    assert PolicyChoice.parse("specee:margin@0.3") == PolicyChoice("specee", 0.3, "margin")


NOISE = "import os, sys; os.write(1, b'\\0' * 8 + b'hello'); sys.stdin.read()"


def test_an_engine_that_sends_what_is_no_message_is_ended(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, NOISE)
    failure = engine.receive(WAIT)
    assert isinstance(failure, Failed) and failure.fatal and "cannot be read" in failure.message
    assert not engine.alive
    engine.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("bytes_sent", [0, 1 << 22])
def test_a_stopped_engine_is_ended(tmp_path: Path, bytes_sent: int) -> None:
    """Also while a message that fills the pipe is on its way: to send does not wait."""
    engine = EngineProcess(tmp_path, fault_engine.PROGRAM, silent_seconds=2)
    engine.send(Load(LoadOptions()))
    assert isinstance(engine.receive(WAIT), ModelLoaded)
    os.kill(engine.pid, signal.SIGSTOP)
    began = time.monotonic()
    engine.send(Generate(1, (Message("user", "x" * bytes_sent),), ChatOptions()))
    engine.send(Cancel(1))
    assert time.monotonic() - began < 1.9  # had it waited, it would have until the engine is ended
    failure = engine.receive(WAIT)
    assert isinstance(failure, Failed) and failure.fatal and failure.title == "engine hung"
    assert "no sign of life" in failure.message and str(engine.log_path) in failure.message
    assert not engine.alive
    engine.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_engine_that_never_came_to_life_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "START_SECONDS", 1.0)
    engine = EngineProcess(tmp_path, "import time; time.sleep(1000)", silent_seconds=0.5)
    assert engine.receive(WAIT).title == "engine hung"
    engine.close()


def test_an_idle_engine_is_left_alone(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, silent_seconds=3.0)
    time.sleep(4.0)
    assert engine.alive
    engine.close()


def test_the_heart_stops_when_a_computation_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    ended = threading.Event()
    watchdog = Watchdog(ended.set, 0.4)
    beating = Heartbeat(lambda message: watchdog.heard(), stuck_seconds=0.1)
    beating.start()
    time.sleep(1.0)
    assert not watchdog.has_bitten, "it has nothing to do"
    beating.begin()
    assert ended.wait(WAIT) and watchdog.has_bitten
