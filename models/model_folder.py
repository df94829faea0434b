"""A folder in place of a model's file: the one model in it, or what the folder holds instead."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from specee.models import gguf_header, hub_names, source
from specee.models.errors import ModelError, NotAChatModelError
from specee.models.model_kind import check_answers

MAX_SHOWN = 6  # names
_OTHERS = {
    "mlc-chat-config.json": "a model for MLC",
    "openvino_model.xml": "an OpenVINO model",
    ".onnx": "an ONNX model",
    ".tflite": "a TFLite model",
    "saved_model.pb": "a TensorFlow model",
    ".mlpackage": "a Core ML model",
    ".mlmodelc": "a Core ML model",
    ".engine": "a TensorRT model",
}
MAX_LOOKED_AT = 10_000  # files below the folder


def only_model(folder: Path) -> Path:
    """The file of the only model in a folder, of a split one the first. Raises ModelError where it is not one.

    Projectors, adapters and other files that go with a model do not count.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf" and path.is_file())
    firsts = list(dict.fromkeys(_first(path) for path in files))
    if len(firsts) == 1:
        return firsts[0]
    models = list(islice(filter(_may_answer, firsts), MAX_SHOWN + 1))
    if len(models) == 1:
        return models[0]
    if firsts:
        what = "several models" if models else "GGUF files, none of which is a chat model"
        names = ", ".join(path.name for path in (models or firsts)[:MAX_SHOWN])
        more = " and more" if len(models or firsts) > MAX_SHOWN else ""
        raise ModelError("model not found", f"{folder} is a folder with {what}: {names}{more}; give the path of one")
    what, to_do = _without_models(folder)
    raise ModelError("model not found", f"{folder} is {what}; {to_do}")


def _first(path: Path) -> Path:
    """The first of the model's files that is here: where the very first one is missing, opening it says so."""
    files = map(path.with_name, source.parts(path.name))
    return next((file for file in files if file.is_file()), path)


def _may_answer(path: Path) -> bool:
    """A damaged one may: the user should hear of it."""
    try:
        check_answers(gguf_header.read_model(path))
    except NotAChatModelError:
        return False
    except ModelError:
        return True
    return True


def _without_models(folder: Path) -> tuple[str, str]:
    names = {path.name for path in islice(folder.iterdir(), MAX_LOOKED_AT)}
    suffixes = {Path(name).suffix.lower() for name in names}
    to_do = "take its GGUF file (repositories with such files often end in -GGUF), or convert it with llama.cpp"
    named = (*sorted(names), folder.name)
    if (
        other := next((what for ending, what in _OTHERS.items() for n in named if n.endswith(ending)), None)
    ) is not None:
        return f"the folder of {other}, not in GGUF", to_do
    if "adapter_config.json" in names:
        return "a LoRA adapter, not a model in GGUF", "take a GGUF file that it is merged into"
    if ".safetensors" in suffixes or "config.json" in names or {".bin", ".pt", ".pth"} & suffixes:
        kind = (
            "safetensors"
            if ".safetensors" in suffixes
            else "PyTorch's format"
            if suffixes & {".bin", ".pt", ".pth"}
            else ""
        )
        holds = f" in {kind}" if kind else ""
        return f"the folder of a model{holds}, not in GGUF", to_do
    if (found := _in_hub_cache(folder)) is not None:
        return f"a repository in the cache of the hub ({found})", f"give hf:{found}"
    if {"blobs", "manifests"} <= names:
        return (
            "where ollama keeps its models",
            "ollama show NAME --modelfile says after FROM which of its files to give",
        )
    below = [
        path for path in islice(folder.rglob("*"), MAX_LOOKED_AT) if path.suffix.lower() == ".gguf" and path.is_file()
    ]
    if below:
        shown = ", ".join(str(path.relative_to(folder)) for path in sorted(below)[:MAX_SHOWN])
        return f"a folder with no .gguf file of its own, but in those below it: {shown}", "give the path of one file"
    return "a folder with no .gguf file", "give the path of one file"


def _in_hub_cache(folder: Path) -> str | None:
    repo = folder.name.removeprefix("models--").replace("--", "/", 1)
    return repo if folder.name.startswith("models--") and hub_names.is_repo(repo) else None
