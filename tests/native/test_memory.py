"""Memory that ends: a status or an error with a reason, and the engine goes on as if nothing had been."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_gguf

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited as on Linux")

NO_MEMORY = """
import ctypes, resource, sys
from pathlib import Path
import numpy as np
from specee.native import abi, library
from specee.native.engine import Model, RowEngine
engine = RowEngine(Model(Path(sys.argv[1])), n_ctx=256, n_threads=1)
n = engine.n_embd
engine.set_lens(3, np.zeros((n, n // 32 * 34), np.uint8), None, np.ones(n, np.float32))
engine.prefill([5, 6, 7])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29),) * 2)
floats = (ctypes.c_float * 64)()
status = engine.lib.specee_predictor_set(engine._handle, 3, 16, 1 << 26, floats, floats, floats, 0.0)
assert status == abi.FAILED, status
assert library.last_error() == "out of memory", library.last_error()
engine.forward(5)
print("went on")
"""


def test_no_memory_is_a_status(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    done = subprocess.run([sys.executable, "-c", NO_MEMORY, str(path)], capture_output=True, text=True)
    assert done.stdout == "went on\n", done.stderr[-2000:]


NO_ROOM = """
import resource, sys
from pathlib import Path
from specee.native.engine import Model, RowEngine
from specee.native.errors import NativeError
model = Model(Path(sys.argv[1]))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29),) * 2)
try:
    RowEngine(model, n_ctx=1 << 16, n_slots=64)
except NativeError as error:
    print(error)
RowEngine(model, n_ctx=256, n_slots=2).slots[1].prefill([5, 6, 7])
print("went on")
"""


def test_no_memory_for_so_many_windows(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    done = subprocess.run([sys.executable, "-c", NO_ROOM, str(path)], capture_output=True, text=True)
    expected = (
        "The model cannot start: no memory for 64 windows of 65536 tokens (failed to allocate buffer for kv cache); "
        "try a smaller --ctx, or fewer of them"
    )
    assert done.stdout == f"{expected}\nwent on\n", done.stderr[-2000:]


LITTLE = """
import resource, sys
from pathlib import Path
import numpy as np
from specee.native.engine import Model, RowEngine
from specee.native.errors import NativeError
path, left = Path(sys.argv[1]), int(sys.argv[2]) << 20
first = Model(path)
whole = RowEngine(first, n_ctx=256, n_threads=2)
whole.prefill([5, 6, 7]); whole.forward(8)

def limit(bytes):
    resource.setrlimit(resource.RLIMIT_AS, (bytes, resource.RLIM_INFINITY))

def calls(engine):
    engine.roll_back(0)
    engine.prefill([5, 6, 7])
    for n in range(1, 9):  # a graph for each
        rows = [engine.append(5)]
        for token in range(6, 5 + n):
            rows.append(engine.append(token, rows[-1]))
        engine.advance(rows, 3)
        engine.advance(rows, engine.n_layer, logits=True)
        engine.roll_back(3)
    engine.forward(8)

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit(used + left)
outcomes = []
try:
    calls(whole)
    outcomes.append("computed")
except NativeError as error:
    outcomes.append(str(error))
try:
    other = RowEngine(Model(path), n_ctx=256, n_threads=2)
    calls(other)
    outcomes.append("opened")
except NativeError as error:
    outcomes.append(str(error))
limit(resource.RLIM_INFINITY)
calls(whole)
fresh = RowEngine(first, n_ctx=256, n_threads=2)
fresh.prefill([5, 6, 7]); fresh.forward(8)
assert np.array_equal(whole.logits(0), fresh.logits(0))
print(*outcomes, sep="\\n")
"""


@pytest.mark.parametrize("left", [0, 8, 24, 40, 64, 96, 128, 192, 320])
def test_little_memory_is_an_error_and_nothing_is_lost(tmp_path: Path, left: int) -> None:
    """With so many MiB left; when there is more again, the same engine gives the same bits."""
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    done = subprocess.run([sys.executable, "-c", LITTLE, str(path), str(left)], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    computed, opened = done.stdout.splitlines()
    assert computed == "computed" or "memory" in computed
    assert opened == "opened" or "memory" in opened
    assert left > 0 or opened != "opened"
