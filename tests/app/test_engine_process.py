"""The pipe and the process at its other end, without a model."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

import pytest

from specee.app.engine.process import EngineProcess
from specee.app.engine.protocol import Failed, Load, Progress, read_message, write_message
from specee.app.options import LoadOptions, PolicyChoice, parse_threshold

WAIT = 60.0


def test_messages_survive_the_pipe() -> None:
    stream = io.BytesIO()
    sent = [Load(LoadOptions(model="ü")), Progress("loading", 0.5)]
    for message in sent:
        write_message(stream, message)
    whole = stream.getvalue()
    stream.seek(0)
    assert [read_message(stream), read_message(stream)] == sent
    with pytest.raises(EOFError):
        read_message(stream)
    with pytest.raises(EOFError):
        read_message(io.BytesIO(whole[:-1][-20:]))


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
