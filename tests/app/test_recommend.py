"""Which model suits which machine: pure functions, by tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from specee.app.engine.measurements import Drafting, Measurements
from specee.app.paths import find
from specee.app.recommend import estimate, here
from specee.app.recommend.candidate import DraftHead, LocalModel
from specee.app.recommend.experience import Experience, Measured
from specee.app.recommend.facts import count, from_entry, from_header, quantization
from specee.app.recommend.machine import DecodingSpeed, Gpu, Machine
from specee.app.recommend.recommendation import PURPOSES, Recommendation, recommend
from specee.app.recommend.speed_store import SpeedStore, decoding_speed
from specee.models import embedded, kv_cache, registry
from specee.models.gguf_header import Header, Tensor, read_model
from specee.models.registry import RegistryEntry

GB = 1_000_000_000
ROWS = {1: 1.0, 2: 1.08, 4: 1.2, 8: 1.9}
ENTRIES = registry.entries()


def speed(gigabytes: float) -> DecodingSpeed:
    return DecodingSpeed(dict.fromkeys(("Q4_K", "Q6_K", "Q8_0", "Q4_0"), gigabytes * GB), ROWS, gigabytes * GB, 3e-5)


def machine(ram: float, gigabytes: float | None, vram: float = 0.0) -> Machine:
    gpus = (Gpu("card", int(vram * GB), int(vram * GB), replace(speed(700), rows={})),) if vram else ()
    return Machine(4, 4, int(ram * GB), gpus, speed(gigabytes) if gigabytes else None)


MACHINES = {
    "4 GB laptop": machine(2.3, 10),
    "8 GB laptop": machine(5, 25),
    "16 GB": machine(11, 40),
    "32 GB": machine(27, 50),
    "8 GB GPU": machine(12, 40, 7.5),
    "24 GB GPU + 64 GB": machine(58, 60, 23.5),
}


def found(of: Machine, **more: object) -> tuple[Recommendation, ...]:
    return recommend(of, ENTRIES.values(), {}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MACHINES)
def test_what_is_best_fits_and_is_made_for_it(name: str) -> None:
    models = found(MACHINES[name])
    assert len(models) == len(ENTRIES)
    assert models[0].best_for[0] == "chat", "the first is the one to take"
    for purpose in PURPOSES:
        (best,) = [model for model in models if purpose in model.best_for]
        assert best.fits and purpose in best.good_for
    fits = [model.fits for model in models]
    assert fits == sorted(fits, reverse=True), "what does not fit is last"


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("purpose", PURPOSES)
def test_the_first_is_the_best_for_what_was_asked(name: str, purpose: str) -> None:
    assert purpose in found(MACHINES[name], purpose=purpose)[0].best_for


def test_more_machine_takes_a_larger_model() -> None:
    sizes = [found(MACHINES[name])[0].file_bytes for name in ("4 GB laptop", "8 GB laptop", "16 GB", "32 GB")]
    assert sizes == sorted(sizes) and sizes[-1] > 5 * sizes[0]


@pytest.mark.parametrize(
    ("ram", "vram", "place"),
    [(100, 0, "memory"), (100, 24, "GPU"), (1, 24, "GPU"), (1, 0, "does not fit"), (1, 2, "does not fit")],
)
def test_where_a_model_fits(ram: float, vram: float, place: str) -> None:
    model = next(model for model in found(machine(ram, 40, vram)) if model.name == "llama3.1-8b")
    assert model.place == place and model.fits == (place != "does not fit")
    assert (model.missing_bytes > 0) == (not model.fits)
    assert model.commands[-1].endswith(" --gpu-layers 33") == (place == "GPU")
    if place == "does not fit":
        assert model.missing_bytes == model.memory_bytes - int(0.95 * ram * GB)
        assert "more than is free" in model.why


def test_memory_is_weights_window_and_work() -> None:
    facts = from_entry(ENTRIES["llama3.1-8b"])
    small, large = (estimate.needed_memory(facts, window) for window in (4096, 32768))
    assert facts.file_bytes < small < 1.3 * facts.file_bytes
    assert large - small >= (32768 - 4096) * facts.kv_bytes_per_token
    assert estimate.needed_memory(facts, 1 << 30) == estimate.needed_memory(facts, facts.context), "never beyond it"


def test_q8_0_keeps_no_scores() -> None:
    """It goes with flash attention: a longer window costs keys and values, and little else."""
    facts = from_entry(ENTRIES["qwen2.5-1.5b"])
    small, large = (estimate.needed_memory(facts, window, "q8_0") for window in (4096, 32768))
    kept = (32768 - 4096) * kv_cache.converted(facts.kv_bytes_per_token, "q8_0")
    assert kept < large - small < 1.2 * kept


def test_a_disk_without_room() -> None:
    of = replace(MACHINES["32 GB"], free_disk=3 * GB)
    models = found(of)
    assert all(model.file_bytes <= 3 * GB for model in models if model.fits)
    doomed = next(model for model in models if model.name == "qwen3-8b")
    assert "the disk has free" in doomed.why and doomed.missing_bytes == doomed.file_bytes - 3 * GB
    local = LocalModel(from_entry(ENTRIES["qwen3-8b"]))
    assert next(m for m in recommend(of, ENTRIES.values(), {"qwen3-8b": local}) if m.name == "qwen3-8b").fits


def test_a_mixture_of_experts_reads_the_active_ones() -> None:
    dense, mixture = (from_entry(ENTRIES[name]) for name in ("qwen3-14b", "qwen3-30b-a3b-instruct"))
    assert mixture.weight_bytes > 2 * dense.weight_bytes and mixture.read_bytes < dense.read_bytes / 3


def test_an_embedding_of_its_own_is_not_read() -> None:
    tied, own = (from_entry(ENTRIES[name]) for name in ("llama3.2-1b", "qwen2.5-coder-1.5b"))
    assert tied.read_bytes == tied.file_bytes
    assert own.file_bytes - own.read_bytes == pytest.approx(151936 * 1536 * 4.5 / 8, rel=0.01)


def test_without_a_measurement_nothing_is_said_of_speed() -> None:
    models = found(machine(11, None))
    assert models[0].best_for and all(model.expected is None and model.measured is None for model in models)
    assert found(Machine(4, 4, None))[0].fits, "nor of memory, where the system does not say"


def test_slow_models_give_way() -> None:
    fast, slow = found(machine(27, 200))[0], found(machine(27, 6))[0]
    assert fast.file_bytes > slow.file_bytes
    tired = next(model for model in found(machine(27, 6)) if model.name == "gemma3-12b")
    assert "slower than one reads" in tired.why


def test_one_that_takes_all_memory_gives_way() -> None:
    of = machine(10, 100)
    roomy, whole = (next(m for m in found(replace(of, free_ram=n * GB)) if m.name == "gemma3-12b") for n in (30, 10))
    assert roomy.fits and whole.fits and "little memory" in whole.why and "little memory" not in roomy.why


@pytest.mark.parametrize("gigabytes", [8.5, 12, 17, 21, 24, 27, 40])
def test_the_one_to_take_leaves_memory_for_others(gigabytes: float) -> None:
    """A mixture of experts is fast at any size, and a larger one just fits into many machines."""
    models = found(machine(gigabytes, 50))
    assert models[0].memory_bytes <= 0.7 * gigabytes * GB and "leaves memory for other programs" in models[0].why
    only = recommend(machine(6.5, 50), [ENTRIES["llama3.1-8b"]], {})
    assert only[0].best_for and "little memory" in only[0].why, "where there is no other one"


def test_drafts_of_a_mixture_bring_less() -> None:
    facts, of = from_entry(ENTRIES["qwen3-30b-a3b-instruct"]), speed(50)
    dense, mixed = estimate.rows_of(from_entry(ENTRIES["qwen3-14b"]), of), estimate.rows_of(facts, of)
    assert dense == ROWS and mixed[1] == pytest.approx(1.0) and all(mixed[n] > ROWS[n] for n in (2, 4, 8))
    assert estimate.speedup(mixed, *estimate.RETRIEVED) < estimate.speedup(dense, *estimate.RETRIEVED)


def test_what_ran_here_corrects_the_others() -> None:
    names = ("qwen2.5-1.5b", "llama3.2-3b")
    of, facts = MACHINES["16 GB"], from_entry(ENTRIES["qwen2.5-1.5b"])
    local = {names[0]: LocalModel(facts, sha256="a" * 64)}
    assert of.speed is not None
    expected = 1 / (estimate.seconds_per_token(facts, of.speed) or 0)
    known = Experience({"a" * 64: Measured(expected / 2, 1.7), "b" * 64: Measured(1e3)})
    before = {model.name: model for model in found(of)}
    after = {model.name: model for model in recommend(of, ENTRIES.values(), local, known)}
    assert after[names[0]].measured == pytest.approx(expected / 2)
    assert after[names[0]].expected == pytest.approx(expected / 2), "the correction is of this model alone"
    assert after[names[0]].expected_with_drafts == pytest.approx(expected / 2 * 1.7)
    for rate in (after[names[1]].expected or 0, (after[names[1]].expected_with_drafts or 0) / 1.05):
        assert rate < 0.6 * (before[names[1]].expected or 0) * 1.2
    assert after[names[1]].measured is None


def test_a_tiny_model_corrects_nothing() -> None:
    of, facts = MACHINES["16 GB"], from_entry(ENTRIES["smollm2-135m"])
    tiny = replace(facts, reads={"F32": 500_000}, layers=1, kv_bytes_per_token=1_000)
    local = {"/models/tiny.gguf": LocalModel(tiny, where="file", sha256="a" * 64)}
    known = Experience({"a" * 64: Measured(24_000)})
    before = {model.name: model.expected for model in found(of)}
    after = {model.name: model.expected for model in recommend(of, ENTRIES.values(), local, known)}
    assert {name: rate for name, rate in after.items() if name in before} == before


def test_drafts() -> None:
    assert estimate.speedup({}, 1.0, (0.6,)) == 1.0, "where nobody knows what rows cost"
    assert estimate.speedup(ROWS, 1.0, ()) == 1.0
    assert estimate.speedup({1: 1.0, 2: 2.0, 4: 4.0}, 1.0, (0.5, 0.5)) == 1.0, "where they cost too much"
    few, many = (estimate.speedup(ROWS, 1.0, (p,) * 3) for p in (0.3, 0.7))
    assert 1.0 < few < many < 4.0
    assert estimate.speedup(ROWS, 1.0, (0.7,) * 3, cost=0.3) < many


def test_a_head_and_a_drafter_count() -> None:
    of, entry = MACHINES["16 GB"], ENTRIES["qwen2.5-coder-1.5b"]
    local = {entry.name: LocalModel(from_entry(entry), sha256="a" * 64)}
    head = {"a" * 64: DraftHead(23_000_000, (0.46, 0.43, 0.46))}
    plain, headed = (
        next(model for model in recommend(of, ENTRIES.values(), local, heads=heads) if model.name == entry.name)
        for heads in ({}, head)
    )
    assert (headed.expected_with_drafts or 0) > 1.1 * (plain.expected_with_drafts or 0)
    paired = next(model for model in found(of) if model.name == "qwen2.5-coder-7b")
    assert paired.drafter == "qwen2.5-coder-0.5b" and not paired.drafter_here
    assert paired.commands == (
        "specee-chat models pull qwen2.5-coder-7b",
        "specee-chat models pull qwen2.5-coder-0.5b",
        "specee-chat --model qwen2.5-coder-7b",
    )
    tight = replace(of, free_ram=int(paired.memory_bytes / 0.95) + 10_000_000)
    alone = next(model for model in found(tight) if model.name == paired.name)
    assert alone.fits and alone.drafter == "", "there is no room for both"


def test_models_that_are_not_in_the_registry() -> None:
    facts = from_entry(ENTRIES["llama3.2-3b"])
    local = {"/m/my model.gguf": LocalModel(facts, "file"), "smollm2-135m": LocalModel(facts, "embedded")}
    models = {model.name: model for model in recommend(MACHINES["16 GB"], ENTRIES.values(), local)}
    own = models["/m/my model.gguf"]
    assert own.here and own.where == "file" and own.parameters == "3.2B" and not own.best_for
    assert own.commands == ("specee-chat --model '/m/my model.gguf'",)
    assert models["smollm2-135m"].commands == ("specee-chat",)


def test_a_model_of_which_little_is_known() -> None:
    entry = RegistryEntry("x", 0, "MIT", "?", 0, 0, 0, 0, "")
    (model,) = recommend(MACHINES["16 GB"], [entry], {})
    assert model.fits and model.expected is None and not model.best_for


@pytest.mark.parametrize(
    ("text", "n"), [("135M", 135e6), ("1.5B", 1.5e9), ("1T", 1e12), ("20k", 2e4), ("", 0), ("8x7B", 0), ("many", 0)]
)
def test_numbers_of_parameters(text: str, n: float) -> None:
    assert count(text) == n


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("Qwen2.5-7B-Instruct-Q4_K_M.gguf", "Q4_K"),
        ("smollm2-q8_0.gguf", "Q8_0"),
        ("x-IQ4_XS.gguf", "IQ4_XS"),
        ("x-IQ2_M-00001-of-00002.gguf", "IQ2_M"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("x-UD-Q5_K_XL.gguf", "Q5_K"),
        ("llama.Q6_K.gguf", "Q6_K"),
        ("x-BF16.gguf", "BF16"),
        ("x.fp16.gguf", "Q4_K"),
        ("model.gguf", "Q4_K"),
    ],
)
def test_quantizations_in_file_names(file: str, kind: str) -> None:
    assert quantization(file) == kind


def test_what_was_measured_is_kept_for_this_library_and_machine(tmp_path: Path) -> None:
    kept = {"rates": {"Q4_K": 1e9}, "rows": {1: 1.0, 4: 1.5}, "attention": 1e9, "layer": 1e-5, "threads": 2}
    SpeedStore(tmp_path / "data" / "speed.json", 2, "build").keep("CPU", kept)
    again = SpeedStore(tmp_path / "data" / "speed.json", 2, "build")
    read = decoding_speed(again.find("CPU"))
    assert read == DecodingSpeed({"Q4_K": 1e9}, {1: 1.0, 4: 1.5}, 1e9, 1e-5)
    assert SpeedStore(tmp_path / "data" / "speed.json", 4, "build").find("CPU") is None
    assert SpeedStore(tmp_path / "data" / "speed.json", 2, "other").find("CPU") is None
    stored = json.loads((tmp_path / "data" / "speed.json").read_text())
    for damage in (
        {},
        {"rates": {}},
        {"rates": {"Q4_K": -1.0}},
        {"rows": {"0": 1.0}},
        {"layer": "x"},
        {"attention": 0},
    ):
        stored["speeds"]["CPU"] = {**kept, **damage} if damage else {}
        (tmp_path / "data" / "speed.json").write_text(json.dumps(stored))
        assert SpeedStore(tmp_path / "data" / "speed.json", 2, "build").find("CPU") is None
    for text in ("", "{", "[]", "null", '{"format": 1}'):
        (tmp_path / "data" / "speed.json").write_text(text)
        assert SpeedStore(tmp_path / "data" / "speed.json", 2, "build").find("CPU") is None
    (tmp_path / "file").write_text("")
    SpeedStore(tmp_path / "file" / "speed.json", 2, "build").keep("CPU", kept)  # cannot be written: no error


def test_experience_is_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specee.app.machine.identity", lambda: "box x4")
    folders = find(str(tmp_path))
    stored = Measurements(folders.measurements)
    stored.drafting["aa | box x4 | 4 threads | v1"] = Drafting({1: 0.1, 4: 0.12}, None, 1.4)
    stored.drafting["bb | box x4 | 4 threads | v2"] = Drafting({1: 0.1})
    stored.drafting["cc | box x4 | 4 threads | v1"] = Drafting({}, "no such memory")
    stored.dense_rates["cc | box x4 | 4 threads | v1"] = 7.0
    stored.dense_rates["dd | box x4 | 2 threads | v1"] = 8.0
    stored.save()
    known = here.experience(folders, replace(MACHINES["16 GB"], build="v1")).models
    assert known == {"aa": Measured(10.0, 1.4, {1: 1.0, 4: pytest.approx(1.2)}), "cc": Measured(7.0)}
    assert here.experience(folders, MACHINES["16 GB"]).models == {}, "without a library nothing was measured"


def header(tensors: dict[str, tuple[int, int]], **values: int) -> Header:
    """Of Q8_0 weights by name: how many, and of how many bytes."""
    listed = tuple(Tensor(name, (n,), "Q8_0", 0, n_bytes) for name, (n, n_bytes) in tensors.items())
    sizes = {
        "block_count": 2,
        "embedding_length": 64,
        "attention.head_count": 8,
        "attention.head_count_kv": 2,
        **values,
    }
    keys = {"general.architecture": "x", **{f"x.{key}": value for key, value in sizes.items()}}
    return Header(Path("x.gguf"), keys, listed, 1000, (Path("x.gguf"),))


LAYERS = {"blk.0.attn_q.weight": (100, 110), "blk.1.ffn_up.weight": (100, 110)}


@pytest.mark.parametrize(
    ("tensors", "values", "read"),
    [
        ({"token_embd.weight": (50, 60)}, {}, 280),
        ({"token_embd.weight": (50, 60), "output.weight": (50, 70)}, {}, 290),
        ({"per_layer_token_embd.weight": (900, 999)}, {}, 220),
        ({"position_embd.weight": (900, 999)}, {}, 220),
        ({"blk.0.ffn_up_exps.weight": (800, 800)}, {"expert_count": 8, "expert_used_count": 2}, 420),
        ({"blk.0.ffn_up_shexp.weight": (80, 80)}, {"expert_count": 8, "expert_used_count": 2}, 300),
        ({"blk.0.ffn_up_exps.weight": (800, 800)}, {}, 1020),
        ({"blk.0.ffn_up_exps.weight": (800, 800)}, {"expert_count": 2, "expert_used_count": 8}, 1020),
        ({"blk.2.attn_q.weight": (100, 110)}, {"block_count": 3, "nextn_predict_layers": 1}, 220),
    ],
)
def test_what_a_token_reads_of_a_file(tensors: dict[str, tuple[int, int]], values: dict[str, int], read: int) -> None:
    facts = from_header(header({**LAYERS, **tensors}, **values))
    assert facts.reads == {"Q8_0": read} and facts.read_bytes == read
    assert facts.exact and facts.queries_per_key == 4.0


def test_the_registry_agrees_with_a_header() -> None:
    if (path := embedded.path()) is None:
        pytest.skip("no embedded model in this build")
    by_name, by_header = from_entry(ENTRIES["smollm2-135m"]), from_header(read_model(path))
    for attribute in ("file_bytes", "layers", "kv_bytes_per_token", "width", "heads", "vocabulary", "context"):
        assert getattr(by_name, attribute) == getattr(by_header, attribute)
    assert by_name.read_bytes == pytest.approx(by_header.read_bytes, rel=0.03)
    assert by_name.parameters == pytest.approx(by_header.parameters, rel=0.03)
