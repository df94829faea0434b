"""Models with changed headers, as far as our check passes them: llama.cpp refuses or opens each, and lives on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_archs
import tiny_gguf

N_MUTATED = 2500  # of each architecture whose layers are alike
N_MUTATED_OTHERS = 600
OTHERS = ("mamba", "rwkv7", "jamba", "qwen3next", "deepseek2", "gemma3")
TESTS = Path(__file__).parent.parent

PROGRAM = """
import contextlib, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from mutations import Mutations
from specee.models import gguf_header, model_structure
from specee.models.errors import ModelError
from specee.native.engine import Model, RowEngine
from specee.native.errors import NativeError
original, seed, count, begin = Path(sys.argv[3]), *map(int, sys.argv[4:7])
opened = refused = 0
for i, how in enumerate(Mutations(original, original.with_suffix(f".{begin}"), seed)(count)):
    path = original.with_suffix(f".{begin}")
    if i < begin:
        continue
    try:
        model_structure.read(gguf_header.read(path))
    except ModelError:
        continue
    print("at", i, how, flush=True)
    try:
        with contextlib.closing(Model(path)) as model:
            for token in range(model.n_vocab):
                model.piece(token)
            with contextlib.suppress(NativeError):
                model.tokenize("Hello, w 1!")
            with contextlib.closing(RowEngine(model, n_ctx=64, n_threads=1)) as engine:
                engine.prefill([5, 6, 7])
                engine.forward(8)
        opened += 1
    except NativeError as error:
        assert str(error).isprintable(), how
        refused += 1
print("done", opened, refused)
"""


@pytest.mark.parametrize("arch", [*tiny_gguf.ARCHITECTURES, *OTHERS])
def test_none_ends_the_process(tmp_path: Path, arch: str) -> None:
    path = (tiny_archs if arch in OTHERS else tiny_gguf).write(tmp_path / "tiny.gguf", arch)
    n_mutated = N_MUTATED_OTHERS if arch in OTHERS else N_MUTATED
    arguments = [str(TESTS / "models"), str(TESTS / "native"), str(path), "21", str(n_mutated)]
    deaths: list[str] = []
    begin, outcome = 0, ""
    while not outcome.startswith("done"):
        child = [sys.executable, "-c", PROGRAM, *arguments, str(begin)]
        done = subprocess.run(child, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        outcome = done.stdout.splitlines()[-1]
        if not outcome.startswith("done"):
            deaths.append(f"{outcome}: {done.returncode}")
            begin = int(outcome.split()[1]) + 1
            assert len(deaths) < 10, deaths
    print(outcome)
    assert deaths == []
    opened, refused = map(int, outcome.split()[1:])
    assert opened > n_mutated / 50 and refused > n_mutated / 50
