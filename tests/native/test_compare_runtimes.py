"""The script that compares runtimes: who is asked for what, and its table. Nothing here looks at a speed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import tiny_gguf

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import compare_runtimes
from compare_runtimes import IkLlama, Job, placed, sets_here, take_turns
from runtime_table import Case, markdown, table

ONE, FOUR, PROMPT, LONG_FOUR = Case(64, 1), Case(64, 4), Case(0, 256), Case(4096, 4)
TWICE = "2.00 (2.00-2.00)"


def test_the_table_compares_within_a_round() -> None:
    """Ratios are taken in each round, so that a round on a slow machine changes none of them."""
    ours = {ONE: [0.01, 0.1, 0.01], FOUR: [0.02, 0.2, 0.03], PROMPT: [0.256] * 3}
    stock = {ONE: [0.02, 0.2, 0.02], FOUR: [0.08, 0.8, 0.08], PROMPT: [0.512] * 3}
    ik = {ONE: [0.01, 0.1, 0.01]}
    alone = {"ours": {ONE: [0.5], FOUR: [0.6]}}
    heads, *rows = table({"avx2": {"ours": ours, "stock": stock, "ik": ik}, "avx512_vnni": alone})
    assert heads == ["instructions", "work", "ours", "x stock", "stock", "ik", "x stock"]
    assert rows == [
        ["avx2", "decode, tokens/s", "100 (10-100)", TWICE, "50.00 (5.00-50.00)", "100 (10-100)", TWICE],
        ["avx2", "t(4)/t(1)", "2.00 (2.00-3.00)", "4.00 (2.67-4.00)", "4.00 (4.00-4.00)", "", ""],
        ["avx2", "prompt of 256, tokens/s", "1000 (1000-1000)", TWICE, "500 (500-500)", "", ""],
        ["avx512_vnni", "decode, tokens/s", TWICE, "", "", "", ""],
        ["avx512_vnni", "t(4)/t(1)", "1.20 (1.20-1.20)", "", "", "", ""],
    ]  # fmt: skip
    lines = markdown([heads, *rows]).splitlines()
    assert len({len(line) for line in lines}) == 1 and all(line.count("|") == 8 for line in lines)


def test_each_works_while_the_others_wait() -> None:
    """All take part in each round, in turns, and the next round goes the other way."""
    asked: list[str] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def measure(self, wanted: list[Case], times: int) -> dict[Case, float]:
            asked.append(self.name)
            return {wanted[0]: float(len(asked))}

        def close(self) -> None: ...

    contenders = {("avx2", kind): Recorder(kind) for kind in ("ours", "stock", "ik")}
    results = take_turns(contenders, [ONE, FOUR], rounds=3, times=1)
    assert asked == ["ours", "stock", "ik", "ik", "stock", "ours", "ours", "stock", "ik"]
    assert results["avx2"]["stock"] == {ONE: [2.0, 5.0, 8.0]}
    assert take_turns(contenders, [], rounds=3, times=1) == {}, "no long text"


def test_ik_llama_is_asked_for_what_it_has(tmp_path: Path) -> None:
    """Its llama-bench knows no rows behind a long text; what it prints is seconds of the right case."""
    program = tmp_path / "llama-bench"
    answers = [
        {"n_prompt": 4, "n_gen": 0, "samples_ns": [2e6, 4e6, 9e6]},
        {"n_prompt": 256, "n_gen": 0, "samples_ns": [3e8]},
        {"n_prompt": 64, "n_gen": 32, "samples_ns": [32e6]},
    ]
    given = tmp_path / "given"
    program.write_text(f"#!/bin/sh\necho \"$@\" > {given}\ncat << 'END'\n{json.dumps(answers)}\nEND\n")
    program.chmod(0o755)
    found = IkLlama(tmp_path, Job(Path("m.gguf"), 2, 512, True)).measure([ONE, FOUR, PROMPT, LONG_FOUR], times=9)
    assert found == {FOUR: 0.004, PROMPT: 0.3, ONE: 0.001}
    assert given.read_text() == "-m m.gguf -t 2 -fa 1 -rtr 1 -n 0 -r 3 -o json -p 4,256 -gp 64,32\n"


def test_which_instruction_sets_there_are() -> None:
    assert sets_here({"avx2", "fma"}) == ["avx2"]
    assert sets_here({"avx2", "avx_vnni"}) == ["avx_vnni", "avx2"]
    assert sets_here({"avx2", "avx512_vnni"}) == ["avx512_vnni", "avx_vnni", "avx2"], "AVX-VNNI by its stand-in"
    assert sets_here(()) == []


def test_a_place_without_a_set_belongs_to_the_best_one(tmp_path: Path) -> None:
    assert placed([str(tmp_path), f"avx2={tmp_path}"], "avx_vnni") == {"avx_vnni": tmp_path, "avx2": tmp_path}
    with pytest.raises(SystemExit, match=r"avx3=.*: there is no avx3="):
        placed([f"avx3={tmp_path}"], "avx2")


def test_what_cannot_be_measured_is_told_before_anything_runs(tmp_path: Path) -> None:
    """A folder without what it was given for, and a file that is no model."""
    model, text = str(tiny_gguf.write(tmp_path / "tiny.gguf", "llama")), tmp_path / "notes.txt"
    text.write_text("no model")
    (empty := tmp_path / "empty").mkdir()
    for option, missing in (("--library", "llama."), ("--stock", "llama."), ("--ik", "llama-bench")):
        with pytest.raises(SystemExit, match=f"there is no {missing} in {empty}"):
            compare_runtimes.main([model, "--sets", "avx2", option, f"avx2={empty}"])
    for path in (text, tmp_path / "nothing.gguf"):
        with pytest.raises(SystemExit, match=path.name):
            compare_runtimes.main([str(path), "--sets", "avx2"])


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours in a process of its own, and an unpatched llama.cpp where there is one: every case is measured."""
    stock = os.environ.get("SPECEE_TEST_STOCK")
    monkeypatch.delenv("SPECEE_KERNELS", raising=False)
    model, out = tiny_gguf.write(tmp_path / "tiny.gguf", "llama"), tmp_path / "out.json"
    rounds = ["--threads", "1", "--rounds", "2", "--times", "1", "--long", "300", "--long-rounds", "1"]
    of_stock = ["--stock", f"avx2={stock}"] if stock else []
    compare_runtimes.main([str(model), "--sets", "avx2", *rounds, *of_stock, "--json", str(out)])
    seconds = json.loads(out.read_text())["seconds"]["avx2"]
    short, long = compare_runtimes.cases(300)
    for kind in ("ours", "stock") if stock else ("ours",):
        n_rounds = {Case(at, n): len(took) for at, n, took in seconds[kind]}
        assert n_rounds == dict.fromkeys(short, 2) | dict.fromkeys(long, 1)
    assert "| avx2         | t(8)/t(1) with 300 in the cache" in capsys.readouterr().out


def test_a_patched_llama_is_not_taken_for_stock(tmp_path: Path) -> None:
    from specee.native import library

    model = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    with pytest.raises(SystemExit, match="ours, and not an unpatched one"):
        compare_runtimes.start_stock(library.directory(), Job(model, 1, 512, False))
