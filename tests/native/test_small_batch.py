"""Our matrix kernels against ggml's for one row: the same bits, whatever the type, the batch and the instructions."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import ggml_kernels as kernels
import numpy as np
import pytest
import tiny_gguf
import vnni_stand_in
from helpers import kv_bytes, run_rows

from specee.native import cpu, library
from specee.native.engine import Model, RowEngine
from specee.native.errors import NativeError

VARIANTS = ("avx512_vnni", "avx_vnni", "avx2")  # the best one that runs is in use


def operands(name: str, n: int, n_in: int = 1536, n_out: int = 24) -> tuple[kernels.Floats, kernels.Floats]:
    rng = np.random.default_rng(n)
    weights = rng.standard_normal((n_out, n_in)).astype(np.float32)
    rows = rng.standard_normal((n, n_in)).astype(np.float32)
    rows[:, :: n_in // 7] *= 40  # outliers, as hidden states have them
    return weights, rows


def ours(
    name: str, weights: kernels.Bytes, rows: kernels.Bytes, n_in: int, layout: int = kernels.ROWS
) -> kernels.Floats:
    out = np.full((len(rows), len(weights) + 3), np.nan, np.float32)  # wider: strides are respected
    kernels.run(kernels.product(name, weights, rows, n_in, out, layout))
    assert np.isnan(out[:, len(weights) :]).all()
    return out[:, : len(weights)]


@pytest.fixture(autouse=True)
def _some_kernels_here() -> None:
    weights = kernels.quantize("Q8_0", np.ones((8, 32), np.float32))
    try:
        kernels.run(kernels.product("Q8_0", weights, weights[:1], 32, np.zeros((1, 8), np.float32)))
    except NativeError:
        pytest.skip("no kernels of ours for this CPU")


@pytest.mark.parametrize("name", kernels.IN_ROWS)
@pytest.mark.parametrize("n_in,n_out", [(1536, 24), (256, 9), (768, 31)])
def test_rows_have_the_bits_of_single_rows(name: str, n_in: int, n_out: int) -> None:
    for n in range(1, kernels.N_MAX + 1):
        weights, rows = operands(name, n, n_in, n_out)
        w, x = kernels.quantize(name, weights), kernels.quantize_rows(name, rows)
        try:
            mine = ours(name, w, x, n_in)
        except NativeError:
            assert n == 1, f"{n} rows"  # where ggml's own is faster
            continue
        np.testing.assert_array_equal(mine, kernels.one_by_one(name, w, x, n_in), f"{n} rows")


@pytest.mark.parametrize("name", ["F16", "BF16"])
@pytest.mark.parametrize("n_in", [64, 128, 256, 1536])  # keys of one head, or values of a cache
def test_half_float_rows_have_the_bits_of_single_rows(name: str, n_in: int) -> None:
    for n in range(1 if name == "F16" else 2, kernels.N_MAX + 1):
        weights, rows = operands(name, n, n_in, 31)
        w, x = kernels.quantize(name, weights), kernels.quantize_rows(name, rows)
        try:
            mine = ours(name, w, x, n_in)
        except NativeError:
            pytest.skip(f"no kernel for {name} on this CPU")
        np.testing.assert_array_equal(mine, kernels.one_by_one(name, w, x, n_in), f"{n} rows")


@pytest.mark.parametrize("name", kernels.IN_GROUPS)
def test_repacked_rows_have_the_bits_of_single_rows(name: str) -> None:
    for n in range(1, kernels.N_MAX + 1):
        weights, rows = operands(name, n)
        w, x = kernels.repack(name, kernels.quantize(name, weights), 1536), kernels.quantize_rows(name, rows)
        expected = kernels.gemv(name, w, x, 1536)
        np.testing.assert_array_equal(ours(name, w, x, 1536, kernels.REPACKED_8), expected, f"{n} rows")


def in_columns(name: str, weights: kernels.Bytes, n_in: int) -> kernels.Bytes:
    try:
        return kernels.columns(name, weights, n_in)
    except NativeError:
        pytest.skip("no columns on this CPU")


@pytest.mark.parametrize("name", kernels.TYPES)
@pytest.mark.parametrize("n_in,n_out", [(1536, 32), (256, 16), (768, 48)])
def test_columns_have_the_bits_of_single_rows(name: str, n_in: int, n_out: int) -> None:
    for n in range(1, kernels.N_MAX + 1):
        weights, rows = operands(name, n, n_in, n_out)
        w, x = kernels.quantize(name, weights), kernels.quantize_rows(name, rows)
        if kernels.is_repacked(name):
            expected = kernels.gemv(name, kernels.repack(name, w, n_in), x, n_in)
        else:
            expected = kernels.one_by_one(name, w, x, n_in)
        mine = ours(name, in_columns(name, w, n_in), x, n_in, kernels.COLUMNS)
        np.testing.assert_array_equal(mine, expected, f"{n} rows")


def test_there_are_no_columns_for_an_odd_number_of_rows() -> None:
    weights = kernels.quantize("Q8_0", np.ones((24, 32), np.float32))
    with pytest.raises(NativeError, match="No columns"):
        kernels.columns("Q8_0", weights, 32)


def test_k_activations_are_quantized_as_by_ggml() -> None:
    rng = np.random.default_rng(0)
    for i in range(500):
        row = (rng.standard_normal(1024) * 10 ** rng.uniform(-6, 6)).astype(np.float32)
        if i % 3 == 0:  # halves, which are rounded to even
            row = (np.round(row / np.abs(row).max() * 254) / 2).astype(np.float32)
        if i % 5 == 0:  # the largest twice, with both signs
            row[[17, 700]] = np.abs(row).max() * np.array([-1, 1], np.float32)
        if i % 7 == 0:
            row[256:512] = 0
        mine = kernels.quantize_rows("Q6_K", row[None])[0]
        np.testing.assert_array_equal(mine, kernels.quantize_k_row_by_ggml(row))


PROMPT_SIZES = (1, 8, 9, 10, 11, 12, 17, 31, 64, 101)
PROMPTS = """
import sys
from contextlib import closing
from specee.native.engine import Model, RowEngine
with closing(Model(sys.argv[1])) as model, closing(RowEngine(model, n_ctx=256, n_threads=2)) as engine:
    for n in map(int, sys.argv[2:]):
        engine.roll_back(0)
        engine.prefill([3 + 7 * i % 80 for i in range(n)])
        sys.stdout.buffer.write(engine.logits(0).tobytes())
"""


@pytest.mark.parametrize("name", kernels.TYPES)
def test_prompts_have_the_bits_of_ggml(name: str, tmp_path: Path) -> None:
    """A whole model of each type reads prompts of many lengths, with kernels of ours and without any."""
    quantize = (name, lambda weights: kernels.quantize(name, weights))
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama", width=4, quantize=quantize)
    logits = []
    for choice in ({}, {"SPECEE_KERNELS": "none"}):
        done = subprocess.run(
            [sys.executable, "-c", PROMPTS, str(path), *map(str, PROMPT_SIZES)],
            env=os.environ | choice,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr[-1000:]
        logits.append(np.frombuffer(done.stdout, np.float32).reshape(len(PROMPT_SIZES), -1))
    for size, mine, theirs in zip(PROMPT_SIZES, *logits, strict=True):
        np.testing.assert_array_equal(mine, theirs, f"a prompt of {size}")


@pytest.mark.parametrize("name", kernels.TYPES)
def test_the_error_is_not_above_that_of_single_rows(name: str) -> None:
    """Against float64, from the weights as stored and the activations before they are rounded to 8 bits."""
    for n in range(1, kernels.N_MAX + 1):
        weights, rows = operands(name, n, n_out=48)
        w, x = kernels.quantize(name, weights), kernels.quantize_rows(name, rows)
        exact = rows.astype(np.float64) @ kernels.dequantize(name, w, 1536).astype(np.float64).T
        one_row = kernels.one_by_one(name, w, x, 1536)
        results = {}
        if name in kernels.IN_ROWS and n > 1:
            results["rows"] = (ours(name, w, x, 1536), one_row)
        if kernels.is_repacked(name):
            groups = kernels.repack(name, w, 1536)
            one_row = kernels.gemv(name, groups, x, 1536)
            if name in kernels.IN_GROUPS:
                results["groups"] = (ours(name, groups, x, 1536, kernels.REPACKED_8), one_row)
        with contextlib.suppress(NativeError):  # not on every CPU
            tiles = kernels.columns(name, w, 1536)
            results["columns"] = (ours(name, tiles, x, 1536, kernels.COLUMNS), one_row)
        for layout, both in results.items():
            mine, theirs = (float(np.sqrt(np.mean((got - exact) ** 2) / np.mean(exact**2))) for got in both)
            assert mine <= theirs, (
                f"{layout}, {n} rows: relative error {mine:.3g}, ggml's kernel for one row {theirs:.3g}"
            )
            assert mine < 0.05, f"{layout}, {n} rows: relative error {mine:.3g}"


@pytest.mark.parametrize("name", kernels.TYPES)
def test_a_batch_writes_the_same_logits_and_state(name: str, tmp_path: Path) -> None:
    """A whole model of each type: n rows at once against one by one, logits and K/V bytes."""
    quantize = (name, lambda weights: kernels.quantize(name, weights))
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama", width=4, quantize=quantize)
    with closing(Model(path)) as model, closing(RowEngine(model, n_ctx=256, n_threads=2)) as engine:
        engine.prefill(list(range(3, 23)))
        start, tokens = engine.length, list(range(30, 30 + kernels.N_MAX))
        singles = []
        for token in tokens:
            engine.forward(token)
            singles.append(engine.logits(0))
        for n in range(2, kernels.N_MAX + 1):
            engine.roll_back(start + n)
            alone = kv_bytes(engine)
            engine.roll_back(start)
            run_rows(engine, tokens[:n])
            for i in range(n):
                np.testing.assert_array_equal(engine.logits(i), singles[i], f"row {i} of {n}")
            assert kv_bytes(engine) == alone, f"{n} rows"
            engine.roll_back(start)
            for token in tokens:
                engine.forward(token)


def test_the_library_knows_how_many_rows_are_equal() -> None:
    assert library.load().specee_max_equal_rows() == kernels.N_MAX


def test_what_has_no_kernel_is_refused() -> None:
    weights, rows = operands("Q8_0", 9)
    w, x = kernels.quantize("Q8_0", weights), kernels.quantize_rows("Q8_0", rows)
    with pytest.raises(NativeError, match="No kernel"):
        ours("Q8_0", w, x, 1536)


def runs(variant: str, **more: str) -> bool:
    probe = "import numpy as np, ggml_kernels as k; "
    probe += "w = k.quantize('Q8_0', np.ones((8, 32), 'f')); "
    probe += "k.run(k.product('Q8_0', w, w[:1], 32, np.zeros((1, 8), 'f')))"
    environment = os.environ | {"SPECEE_KERNELS": variant} | more
    here = Path(__file__).parent  # where ggml_kernels is
    return not subprocess.run([sys.executable, "-c", probe], env=environment, cwd=here, capture_output=True).returncode


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_that_runs_here(variant: str, tmp_path: Path) -> None:
    """The tests above, in a process that uses other instructions than they did here."""
    if os.environ.get("SPECEE_KERNELS"):
        pytest.skip("inside of such a process")
    more = {}
    lacks = variant == "avx_vnni" and "avx_vnni" not in (cpu.features() or ()) and "LD_PRELOAD" not in os.environ
    if lacks and not vnni_stand_in.reason_against():
        stand_in = Path(os.environ.get("SPECEE_TEST_STAND_IN", tmp_path / "stand-in.so"))
        if not stand_in.is_file():
            stand_in = tmp_path / "stand-in.so"
            vnni_stand_in.build(stand_in)
        more["LD_PRELOAD"] = str(stand_in)
    if not runs(variant, **more):
        pytest.skip(f"this CPU does not run {variant}")
    if not any(runs(better) for better in VARIANTS[: VARIANTS.index(variant)]):
        pytest.skip("the tests above ran with these instructions")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env=os.environ | {"SPECEE_KERNELS": variant} | more,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
