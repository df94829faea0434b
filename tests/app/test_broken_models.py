"""Models whose header passes our check, and that llama.cpp has to refuse: in the engine process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_gguf
from mutations import Mutations

from specee.app.engine.process import EngineProcess
from specee.app.engine.protocol import Failed, Load, ModelLoaded
from specee.app.errors import AppError
from specee.app.options import LoadOptions
from specee.models import gguf_header
from specee.models.errors import ModelError
from specee.native import library
from specee.native.errors import NativeError

N_LOADED = 60


def missing() -> str | None:
    try:
        library.directory()
    except NativeError as error:
        return str(error)
    return None


@pytest.mark.skipif(missing() is not None, reason="no native library")
def test_each_ends_loaded_or_as_one_line(tmp_path: Path) -> None:
    """A load that crashes the engine process is a line too, and the next one starts another."""
    mutations = Mutations(tiny_gguf.write(tmp_path / "tiny.gguf", "llama"), tmp_path / "mutated.gguf", seed=5)
    engine = EngineProcess(tmp_path / "logs")
    outcomes: list[ModelLoaded | Failed] = []
    for how in mutations(2000):
        try:
            gguf_header.read(mutations.path)
        except ModelError:
            continue
        if not engine.alive:
            engine.close()
            engine = EngineProcess(tmp_path / "logs")
        engine.send(Load(LoadOptions(model=str(mutations.path), n_ctx=64, data_dir=str(tmp_path))))
        while not isinstance(received := engine.receive(60), (ModelLoaded, Failed)):
            pass
        if isinstance(received, Failed):
            line = AppError(received.title, received.message).line
            assert received.title and received.message and line.isprintable(), how
        outcomes.append(received)
        if len(outcomes) == N_LOADED:
            break
    engine.close()
    assert len(outcomes) == N_LOADED
    assert {type(outcome) for outcome in outcomes} == {ModelLoaded, Failed}
    refused = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    print(f"{len(refused)} refused, {sum('crashed' in r.title for r in refused)} of them by a crash")
