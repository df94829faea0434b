"""The benchmark over a fake backend, its figures, and how they are shown."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from specee.app.bench import metrics, plot
from specee.app.bench.answer import Answer, PolicyAnswer, Round, StepCounts
from specee.app.bench.prompts import DEFAULT, Asked, BenchPrompt, read_prompts
from specee.app.bench.report import report
from specee.app.bench.rounds import compare
from specee.app.cli import bench_tables
from specee.app.errors import USAGE, AppError
from specee.app.options import PLAIN_GREEDY, PolicyChoice, Sampling
from specee.predictors.decoding.stats import DecodingStats

FACTS: dict[str, Any] = {
    "date": "2030-01-02T03:04:05+00:00",
    "model": "fake",
    "arch": "llama",
    "n_layers": 30,
    "model_sha256": "0" * 64,
    "max_tokens": 64,
    "temperature": 0.0,
    "repeat_penalty": 1.0,
    "repeats": 1,
    "version": "0",
    "llama_cpp_python": "1.2.3",
    "kv_type": "f16",
    "threads": 1,
    "machine": {"cpu": "none", "cores": 1, "instruction_sets": ["avx2"], "kernels": "all"},
}
PROMPTS = [BenchPrompt("a", "One", "chat"), BenchPrompt("b", "Two", "code"), BenchPrompt("c", "Three", "code")]


class Wrong:
    """One token is not the one that dense would choose."""

    name = "specee"

    def __init__(self, inner: Any, at: int, token: int) -> None:
        self.inner, self.at, self.token = inner, at, token

    def reset(self) -> None: ...

    def decode(self, state: Any) -> Any:
        from dataclasses import replace

        from specee.predictors.types import TokenEvent

        steps, result = self.inner.decode(state), None
        while True:
            try:
                step = steps.send(result)
            except StopIteration:
                return
            if isinstance(step, TokenEvent) and step.index == self.at:
                step = replace(step, token=self.token)
            result = yield step


def run(
    backend: Any, *labels: str, prompts: Any = PROMPTS[:2], emit: Any = lambda m: None, stock: Any = None, **asked: Any
) -> list[Round]:
    """Rounds of these policies."""
    how = Asked(**{"sampling": PLAIN_GREEDY, "max_tokens": 64, **asked})

    def fresh() -> dict[str, Any]:
        return {label: backend.policy(PolicyChoice(label)) for label in labels}

    return list(compare(backend, fresh, prompts, how, emit, stock))


def figures(rounds: list[Round], prompts: Any = PROMPTS, **facts: Any) -> dict[str, Any]:
    rows = {label: {"policy": label} for label in rounds[0].answers}
    found = report(rows, prompts, rounds, {**FACTS, **facts}, complete=True)
    json.dumps(found)
    return found


def made(tokens: list[int], seconds: float, stats: DecodingStats | None = None) -> PolicyAnswer:
    """An answer at a steady rate, a step for each token."""
    n = len(tokens)
    stats = stats or DecodingStats(steps=n - 1)
    counts = [StepCounts(i, 2 * i, i) for i in range(n)]
    return PolicyAnswer(tokens, [seconds * i for i in range(n)], [30] * n, counts, "", stats)


# ---- rounds --------------------------------------------------------------------------------------------------------


def test_a_policy_with_the_same_text_agrees(make_backend: Callable[..., Any]) -> None:
    found = figures(run(make_backend(b"to be or not to be"), "dense", "exact"))["policies"]
    exact = found["exact"]
    assert exact["identical_texts"] == 2 and exact["first_differences"] == {}
    assert exact["agreement"] == 1.0 and exact["ppl_ratio"] == pytest.approx(1.0)
    assert exact["mean_exit_layer"] < found["dense"]["mean_exit_layer"] == 30
    assert exact["speedup_min"] <= exact["speedup"] <= exact["speedup_max"]
    assert found["dense"]["speedup"] == 1.0 and found["dense"]["tokens_per_step"] == 1.0
    assert exact["exit_layers"].keys() == {24, 30}


def test_a_policy_that_errs_is_found_out(make_backend: Callable[..., Any], scripted: Callable[..., Any]) -> None:
    backend = make_backend(b"no way out")
    backend.policies["specee"] = Wrong(scripted(), at=4, token=ord("X"))
    found = figures(run(backend, "dense", "specee", prompts=PROMPTS[:1]))
    specee = found["policies"]["specee"]
    assert specee["identical_texts"] == 0 and specee["first_differences"] == {"a": 4}
    assert specee["by_category"]["chat"]["identical_texts"] == 0
    n = len("no way out") + 1  # with the stop token
    assert specee["agreement"] == pytest.approx((n - 1) / n)
    assert specee["ppl_ratio"] > 1.0
    assert f"{(n - 1) / n:.1%}" in bench_tables.text(found)


def test_the_order_is_turned_round_from_prompt_to_prompt(make_backend: Callable[..., Any]) -> None:
    steps: list[str] = []
    asked: list[Any] = []

    def stock(prompt: Any, n: int) -> Answer:
        asked.append(list(prompt))
        return Answer([1, 2], [0.0, 0.1])

    backend = make_backend()
    emit = lambda m: steps.append(m.what.rpartition(": ")[2])  # noqa: E731
    rounds = run(backend, "dense", "exact", emit=emit, stock=stock, repeats=2, max_tokens=8)
    forth, back = ["dense", "exact", "stock"], ["stock", "exact", "dense"]
    assert steps == [*forth, *back, *back, *forth], "each prompt is asked in both orders"
    assert [r.prompt for r in rounds] == [0, 1, 0, 1] and [bool(r.scores) for r in rounds] == [True, True, False, False]
    assert asked[1:] == [*asked[1:3], *asked[1:3]] and asked[1] in backend.engine.prompts, "the same tokens"


def test_each_answer_is_prepared_for_its_own_policy(make_backend: Callable[..., Any]) -> None:
    backend = make_backend()
    labels = ("dense", "exact")
    prepared: list[str] = []

    def fresh() -> dict[str, Any]:
        return {label: backend.policy(PolicyChoice(label)) for label in labels}

    asked = Asked(PLAIN_GREEDY, 8)
    assert len(list(compare(backend, fresh, PROMPTS[:2], asked, lambda m: None, None, prepared.append))) == 2
    assert prepared == ["dense", "exact", "dense", "exact", "exact", "dense"], "to warm up, and in both orders"


def test_each_repeat_has_policies_that_learned_nothing(make_backend: Callable[..., Any]) -> None:
    backend = make_backend()
    policies: list[Any] = []

    def fresh() -> dict[str, Any]:
        policies.append(backend.policy(PolicyChoice("dense")))
        return {"dense": policies[-1]}

    rounds = list(compare(backend, fresh, PROMPTS[:1], Asked(PLAIN_GREEDY, 8, repeats=2), lambda m: None))
    assert len(rounds) == 2 and len(policies) == 3, "those that warm up are not measured"
    assert figures(rounds)["policies"]["dense"]["identical_texts"] == 1, "a prompt counts once"


# ---- figures -------------------------------------------------------------------------------------------------------


def test_speeds_are_ratios_of_the_same_round() -> None:
    text = list(range(11))
    rounds = [
        Round(0, {"dense": made(text, 0.1), "chain": made(text, 0.05)}, Answer(text, [0.2 * i for i in range(11)])),
        Round(1, {"dense": made(text, 0.2), "chain": made(text, 0.2)}, Answer(text[:5], [0.2 * i for i in range(5)])),
        Round(2, {"dense": made([7], 0.0), "chain": made([7], 0.0)}, Answer([7], [0.0])),
    ]
    found = figures(rounds)
    chain, stock = found["policies"]["chain"], found["stock"]
    assert chain["speedup"] == pytest.approx(math.sqrt(2.0))
    assert (chain["speedup_min"], chain["speedup_max"]) == pytest.approx((1.0, 2.0))
    assert chain["tokens_per_second"] == pytest.approx(20 / 2.5)
    assert chain["by_category"]["chat"]["speedup"] == pytest.approx(2.0)
    assert chain["by_category"]["code"] == {
        "speedup": pytest.approx(1.0), "vs_stock": pytest.approx(1.0), "prompts": 2, "identical_texts": 2
    }  # fmt: skip
    assert chain["identical_texts"] == 3, "an answer of one token counts here"
    assert chain["vs_stock"] == pytest.approx(2.0) and chain["vs_stock_max"] == pytest.approx(4.0)
    assert stock["identical_texts"] == 2 and stock["first_differences"] == {"b": 5}
    assert stock["speedup"] == pytest.approx(math.sqrt(0.5))


def test_repeats_of_a_prompt_count_as_one() -> None:
    text = [1, 2, 3]
    pairs = ((0, 0.1, 0.05), (0, 0.1, 0.2), (1, 0.1, 0.025))
    rounds = [Round(p, {"dense": made(text, dense), "chain": made(text, own)}) for p, dense, own in pairs]
    chain = figures(rounds)["policies"]["chain"]
    assert (chain["speedup_min"], chain["speedup"], chain["speedup_max"]) == pytest.approx((1.0, 2.0, 4.0))
    assert chain["vs_stock"] is None


def test_until_loop_ends_where_dense_first_repeats_itself() -> None:
    text = [*range(12), *range(12), *range(8)]  # the 24th token completes the repeated 12-gram
    slow_at_first = made(text, 0.0)
    slow_at_first = PolicyAnswer(
        text, [min(i, 23) * 0.2 for i in range(32)], [20] * 32, slow_at_first.counts, "", DecodingStats(steps=31)
    )
    found = figures([Round(0, {"dense": made(text, 0.1), "chain": slow_at_first})])["policies"]["chain"]
    assert found["speedup"] == pytest.approx(3.1 / 4.6)
    loop = found["until_loop"]
    assert loop["speedup"] == loop["by_category"]["chat"]["speedup"] == pytest.approx(0.5)
    assert loop["tokens"] == 23 and loop["answers_that_loop"] == 1
    assert loop["tokens_per_step"] == 1.0 and loop["acceptance"] == 0.5 and loop["mean_exit_layer"] == 20


def test_drafts_are_counted_by_position_and_drafter() -> None:
    stats = DecodingStats(steps=4)
    stats.count_drafts(["suffix", "retrieval"], 1)
    stats.count_drafts(["suffix"], 0)
    rounds = [Round(0, {"dense": made([1, 2], 0.1), "chain": made([1, 2], 0.1, stats)})]
    chain = figures(rounds)["policies"]["chain"]
    assert chain["acceptance_by_position"] == [0.5, 0.0] and chain["acceptance"] == pytest.approx(1 / 3)
    suffix = chain["drafters"]["suffix"]
    assert (suffix["drafted"], suffix["accepted"], suffix["drafted_by_position"]) == (2, 1, [2])
    assert figures(rounds)["policies"]["dense"]["acceptance"] is None


def test_sampled_texts_of_the_library_are_not_compared(make_backend: Callable[..., Any]) -> None:
    sampling = Sampling(temperature=0.7, seed=3)
    rounds = run(make_backend(), "dense", "exact", stock=lambda p, n: Answer([1, 2], [0, 0.1]), sampling=sampling)
    found = figures(rounds, temperature=0.7)
    assert found["stock"]["identical_texts"] is None and found["stock"]["speedup"] > 0
    assert found["stock"]["by_category"]["chat"]["identical_texts"] is None
    assert found["policies"]["exact"]["agreement"] is None and "agreement" not in bench_tables.text(found)
    assert "only its rates can be compared" in bench_tables.text(found)


def test_metrics() -> None:
    assert metrics.duplicate_words(["the the cat", "sat"]) == 0.5
    assert metrics.duplicate_words([""]) == 0.0
    assert metrics.geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert metrics.nll(np.zeros(8, np.float32), 3) == pytest.approx(math.log(8))
    assert metrics.nll(np.array([1e4, 0.0], np.float32), 1) == pytest.approx(1e4)


# ---- tables and plot -----------------------------------------------------------------------------------------------


@pytest.fixture
def shown() -> dict[str, Any]:
    stats = DecodingStats(steps=5)
    stats.count_drafts(["suffix", "suffix"], 1)
    text = list(range(11))
    return figures(
        [
            Round(p, {"dense": made(text, 0.1), "chain": made(text, own, stats)}, Answer(text, [0.2 * i for i in text]))
            for p, own in enumerate((0.05, 0.1, 0.08))
        ]
    )


def test_tables_have_a_row_for_each_policy_and_category(shown: dict[str, Any]) -> None:
    lines = bench_tables.text(shown).splitlines()
    rows = {line.split("  ")[0]: line.split() for line in lines if "  " in line}
    assert rows["chain"][1:4] == ["13.0", "1.36", "(1.00-2.00)"] and rows["chain"][-3:] == ["3", "of", "3"]
    assert rows["stock llama.cpp"][2:4] == ["5.0", "0.50"]
    assert rows["code"][1:] == ["2", "1.12", "0.50"]
    assert not any("exit layer" in line or "agreement" in line for line in lines), "all have the same"
    assert max(map(len, lines)) < 190


def test_tables_name_keys_and_values_that_are_not_f16(shown: dict[str, Any]) -> None:
    assert "keys and values" not in bench_tables.text(shown | {"kv_type": "f16"})
    assert "; keys and values in q8_0" in bench_tables.text(shown | {"kv_type": "q8_0"})


def test_markdown_is_what_github_reads(shown: dict[str, Any]) -> None:
    shown["policies"]["a|b"] = shown["policies"].pop("chain")
    lines = bench_tables.markdown(shown).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert tables[0].startswith("| policy | tokens/s | speed-up |") and tables[1].startswith("| --- | ---: |")
    assert any(line.startswith("| a\\|b = chain |") for line in tables)
    assert all(line.startswith(("|", "- ")) for line in lines if line)


def test_what_was_interrupted_says_so(shown: dict[str, Any]) -> None:
    shown["complete"] = False
    assert bench_tables.text(shown).startswith("INCOMPLETE")
    assert "(incomplete)" in plot.svg(shown)


def test_the_plot_has_a_bar_for_each(shown: dict[str, Any]) -> None:
    shown["model"] = 'a <b> & "c"'
    root = ElementTree.fromstring(plot.svg(shown))
    name = "{http://www.w3.org/2000/svg}"
    bars = [(e.get("class"), float(e.get("width") or 0)) for e in root.iter(f"{name}rect")]
    assert [kind for kind, _ in bars] == ["dense", "policy", "stock"]
    assert bars[1][1] > bars[0][1] > bars[2][1] > 0
    assert len(list(root.iter(f"{name}line"))) == 2
    assert "prefers-color-scheme: dark" in (root.findtext(f"{name}style") or "")
    texts = [e.text for e in root.iter(f"{name}text")]
    assert "13.0  1.36x (1.00-2.00)" in texts and any("a <b> &" in (text or "") for text in texts)


# ---- prompts -------------------------------------------------------------------------------------------------------


def test_prompts_are_read(tmp_path: Path) -> None:
    assert read_prompts(None) == list(DEFAULT)
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "x", "prompt": "Hi", "category": "chat"}\n\n{"prompt": "Ho\u2028!"}\n', "utf-8")
    assert read_prompts(str(file)) == [BenchPrompt("x", "Hi", "chat"), BenchPrompt("3", "Ho\u2028!")]
    file.write_text('{"prompt": "as PowerShell writes it"}\r\n', "utf-16")
    assert [prompt.text for prompt in read_prompts(str(file))] == ["as PowerShell writes it"]
    with pytest.raises(AppError, match="missing"):
        read_prompts(str(tmp_path / "missing"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are POSIX's")
def test_prompts_are_read_from_a_pipe(tmp_path: Path) -> None:
    """As <(...) of a shell is one; one that nobody writes to is no reason to wait."""
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(AppError, match="has no prompts"):
        read_prompts(str(pipe))
    writer = threading.Thread(target=pipe.write_text, args=('{"prompt": "Hi"}\n' * 2,))
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb"):  # so that the writer can begin
        writer.start()
        writer.join()
        assert [prompt.text for prompt in read_prompts(str(pipe))] == ["Hi", "Hi"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no prompts"),
        (b"\n \n", "no prompts"),
        (b'{"prompt": "a"}\n{"prompt": "b"\n', "line 2: not JSON"),
        (b"NaN", "line 1: expected an object"),
        (b'["a"]', "line 1: expected an object"),
        (b'{"id": 1}', "line 1: expected an object"),
        (b'{"prompt": "a"}\n\n{"prompt": " "}', "line 3: the prompt is empty"),
        (b'{"prompt": 7}', "line 1: the prompt is a number"),
        (b'{"prompt": null}', "line 1: the prompt is null"),
        (b'{"prompt": "a", "id": [1]}', "line 1: the id is a list"),
        (b'{"prompt": "a", "id": true}', "line 1: the id is a truth value"),
        (b'{"prompt": "a", "category": {}}', "line 1: the category is an object"),
        (b'{"prompt": "a", "id": "x"}\n\n{"prompt": "c", "id": "x"}', "line 3: the id 'x' is that of line 1"),
        (b'{"prompt": "a", "id": "2"}\n{"prompt": "b"}', "line 2: the id '2' is that of line 1"),
        (b'{"prompt": "\xff"}', "UTF-8"),
        (b'{"prompt": "\0"}', "not text"),
    ],
)  # fmt: skip
def test_bad_prompts_are_one_clear_line(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_bytes(content)
    with pytest.raises(AppError) as caught:
        read_prompts(str(file))
    assert says in caught.value.line and caught.value.exit_code == USAGE
