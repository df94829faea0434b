"""`models optimize`: what is kept and refused, and what it reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
from real_engine import missing_model

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_archs
import tiny_gguf

from specee.app.cli import optimization_summary
from specee.app.engine import optimization_task
from specee.app.engine.optimization_task import Figures
from specee.app.errors import AppError
from specee.app.options import LoadOptions
from specee.models import embedded

NO_MODEL = missing_model()
BEFORE = Figures(prefill=100, t1=0.010, t4=0.030, perplexity=5.0)


@pytest.mark.parametrize(
    ("after", "worth", "reason"),
    [
        (Figures(200, 0.010, 0.020, 5.0), True, "worth it"),
        (Figures(102, 0.0099, 0.030, 5.0), False, "not worth it"),
        (Figures(200, 0.012, 0.020, 5.0), False, "mixed: answers come slower"),
    ],
)
def test_the_verdict(after: Figures, worth: bool, reason: str) -> None:
    found = optimization_task.verdict(BEFORE, after)
    assert found["worth_it"] is worth and found["verdict"].startswith(reason)


def test_a_loss_is_refused_unless_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_gguf.write(tmp_path / "tiny.gguf", "llama", tied=True)
    load = LoadOptions(model=str(model), data_dir=str(tmp_path / "data"))
    worse = Figures(200, 0.010, 0.020, 5.1)
    monkeypatch.setattr(optimization_task, "compare", lambda *arguments: (BEFORE, worse))
    with pytest.raises(AppError, match=r"\+2\.00%") as refused:
        optimization_task.run_optimize(load, lambda message: None)
    assert refused.value.exit_code == 2 and list((tmp_path / "data" / "models").iterdir()) == []
    kept = optimization_task.run_optimize(load, lambda message: None, force=True)
    assert Path(kept["path"]).name == "tiny-q8_0.gguf" and Path(kept["path"]).stat().st_size == kept["bytes"]
    with pytest.raises(AppError, match="already there"):
        optimization_task.run_optimize(load, lambda message: None)


def test_nothing_to_do(tmp_path: Path) -> None:
    model = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    with pytest.raises(AppError, match="nothing to do"):
        optimization_task.run_optimize(LoadOptions(model=str(model), data_dir=str(tmp_path)), lambda message: None)


def first_layers(model: Path, path: Path, n_layer: int) -> Path:
    """The front of a model: nonsense, but with a whole vocabulary, and quick."""
    reader, writer = gguf.GGUFReader(model), gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if field.name != "general.architecture" and not field.name.startswith("GGUF."):
            value = n_layer if field.name == "llama.block_count" else field.contents()
            items = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, value, field.types[0], sub_type=items)
    for tensor in reader.tensors:
        if not tensor.name.startswith("blk.") or int(tensor.name.split(".")[1]) < n_layer:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.skipif(NO_MODEL is not None, reason=f"nothing to measure: {NO_MODEL}")
def test_both_models_are_measured(tmp_path: Path) -> None:
    whole = embedded.path()
    assert whole is not None
    model = first_layers(whole, tmp_path / "front.gguf", 2)
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from specee.app.cli.main import main; main()"),
            *("models", "optimize", str(model), "--output", str(tmp_path / "copy.gguf"), "--json", "--force"),
        ],
        env={**os.environ, "SPECEE_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["path"] == str(tmp_path / "copy.gguf") and result["bytes"] > result["bytes_before"]
    assert (
        result["changes"][0] == "14 x layer weights: Q4_1 -> Q8_0" and "an LM head of its own" in result["changes"][1]
    )
    assert all(value > 0 for which in ("before", "after") for value in result[which].values())
    assert 0.9 < result["perplexity_ratio"] < 1.1 and "reading prompts" in result["verdict"]


@pytest.mark.skipif(NO_MODEL is not None, reason=f"nothing to measure: {NO_MODEL}")
@pytest.mark.parametrize("name", ["mamba", "falcon-h1"])
def test_a_model_that_takes_one_token_after_the_other_is_measured(tmp_path: Path, name: str) -> None:
    """Its memory cannot go back to before a step."""
    model = tiny_archs.write(tmp_path / f"{name}.gguf", name, vocabulary=embedded.path())
    load = LoadOptions(model=str(model), data_dir=str(tmp_path))
    result = optimization_task.run_optimize(load, lambda message: None, force=True)
    assert Path(result["path"]).is_file() and "tokens at once" not in result["verdict"]
    for which in ("before", "after"):
        assert result[which]["t4"] is None
        assert all(value > 0 for key, value in result[which].items() if key != "t4")
    assert " - " in optimization_summary.text(result)


def test_the_result_as_text() -> None:
    found = {
        "path": "/data/models/copy.gguf",
        "bytes_before": 98_400_000,
        "bytes": 150_000_000,
        "changes": ["14 x layer weights: Q4_1 -> Q8_0"],
        "before": {"prefill": 100, "t1": 0.01, "t4": 0.03, "perplexity": 5.0},
        "after": {"prefill": 200, "t1": 0.01, "t4": 0.02, "perplexity": 5.01},
        "perplexity_ratio": 1.002,
        "verdict": "worth it (reading prompts 2.00x)",
    }
    lines = optimization_summary.text(found).splitlines()
    assert lines[0] == "14 x layer weights: Q4_1 -> Q8_0"
    assert [line.split()[0] for line in lines[3:5]] == ["before", "after"]
    assert "30.00" in lines[3] and lines[4].endswith("150.0 MB")
    assert lines[-2] == "worth it (reading prompts 2.00x); perplexity +0.20%" and "/data/models/copy.gguf" in lines[-1]
