"""Files that are no GGUF files, and folders: what they are, and what to do with them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import re
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import changed_gguf
import split_gguf
import tiny_gguf
from gguf import GGUFValueType as Type

from specee.models import cache, gguf_header, resolve
from specee.models.errors import MISSING, ModelError


def refusal(name: Path | str) -> str:
    with pytest.raises(ModelError) as told:
        gguf_header.read_model(resolve.resolve(str(name)).path)
    assert told.value.exit_code == MISSING and str(told.value).isprintable() and len(str(told.value)) < 700
    return str(told.value)


def zipped(names: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return made.getvalue()


def tarred(name: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"GGUF\3"))
    return made.getvalue()


def safetensors(header: dict[str, object]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


def npz() -> bytes:
    made = io.BytesIO()
    np.savez(made, a=np.ones(3))
    return made.getvalue()


MODEL = b"GGUF\3\0\0\0" + bytes(200)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 4683073984\n".format("a" * 64)
ANNEX = "/annex/objects/SHA256E-s4683073984--{}.gguf\n".format("a" * 64)
WEIGHTS = {"model.embed.weight": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}}
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "config": {"digest": f"sha256:{'b' * 64}"},
    "layers": [
        {"mediaType": "application/vnd.ollama.image.template", "digest": f"sha256:{'c' * 64}"},
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{'a' * 64}", "size": 9},
    ],
}
FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("x.gguf", b"", "is empty; get the file again"),
    "LFS": ("x.gguf", POINTER.encode(), r"a Git LFS pointer.*4\.7 GB.*; git lfs pull"),
    "LFS with other line ends": ("x.gguf", POINTER.replace("\n", "\r\n").encode(), r"a Git LFS pointer.*4\.7 GB"),
    "annex": ("x.gguf", ANNEX.encode(), r"a git-annex pointer.*4\.7 GB.*; git annex get"),
    "xet": ("x.gguf", b"# xet version 0\nfilesize = 4683073984\nhash = 'aa'\n", r"a Git Xet pointer.*4\.7 GB"),
    "page": ("x.gguf", b"<!DOCTYPE html>\n<html lang=en>", "a web page.*download it again"),
    "page with a mark": ("x.gguf", "\ufeff\n <!-- hi -->\n<HTML>".encode(), "a web page"),
    "page in xhtml": ("x.gguf", b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC', "a web page"),
    "page in utf-16": ("x.gguf", "<html><body>no</body></html>".encode("utf-16"), "a web page"),
    "an answer": ("x.gguf", b'{"error":"Repository not found"}', "a server's message.*Repository not found"),
    "a refusal": ("x.gguf", b"Invalid username or password.", "text .'Invalid username or password"),
    "a text that steers": ("x.gguf", b"hello\tthere", "not a GGUF file but a text .'hello there'"),
    "safetensors": ("model.safetensors", safetensors(WEIGHTS), "is in safetensors, not GGUF.*-GGUF"),
    "safetensors by another name": ("x.gguf", safetensors(WEIGHTS), "is in safetensors"),
    "an adapter": ("x.safetensors", safetensors({"a.lora_A.weight": {}}), "a LoRA adapter in safetensors"),
    "an index": ("x.json", b'{"metadata": {}, "weight_map": {"a": "b"}}', "a text"),
    "config.json": ("config.json", b'{"architectures": ["LlamaForCausalLM"]}', "description of a model"),
    "PyTorch": ("pytorch_model.bin", zipped({"archive/data.pkl": b"x"}), "a PyTorch file"),
    "old PyTorch": ("x.pt", pickle.dumps({"a": 1}, 2), "a PyTorch file"),
    "unknown bin": ("x.bin", b"\x01\x02\x03\x04" * 30, "mostly PyTorch"),
    "ONNX": ("model.onnx", b"\x08\x08\x12\x07pytorch\x1a" + bytes(90), "an ONNX model"),
    "ONNX by another name": ("x.gguf", b"\x08\x09\x12\x0connx.convert" + bytes(90), "an ONNX model"),
    "TFLite": ("x.tflite", b"\x1c\0\0\0TFL3" + bytes(90), "a TFLite model"),
    "Keras": ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(90), "a Keras model"),
    "NumPy": ("weights.npz", npz(), "a NumPy archive"),
    "TensorFlow": ("saved_model.pb", b"\x08\x01\x12\xff" + bytes(90), "a TensorFlow model"),
    "zip": (
        "x.gguf.zip",
        zipped({"sub/model-Q4_0.gguf": MODEL}),
        r"a zip archive; unpack it, and give model-Q4_0\.gguf",
    ),
    "zip of others": ("x.zip", zipped({"readme.txt": b"x"}), "a zip archive; unpack it, and give the .gguf file in it"),
    "tar": ("x.tar", tarred("model.gguf"), r"a tar archive; unpack it, and give model\.gguf"),
    "gzip": ("x.gguf.gz", gzip.compress(MODEL), r"compressed \(gzip\); unpack it"),
    "bzip2": ("x.gguf.bz2", bz2.compress(MODEL), r"compressed \(bzip2\)"),
    "xz": ("x.gguf.xz", lzma.compress(MODEL), r"compressed \(xz\)"),
    "zstd": ("x.gguf.zst", b"\x28\xb5\x2f\xfd" + bytes(90), r"compressed \(zstd\)"),
    "7z": ("x.7z", b"7z\xbc\xaf\x27\x1c" + bytes(90), r"compressed \(7z\)"),
    "GGML": ("ggml-model.bin", b"lmgg" + bytes(90), "old format GGML,"),
    "whisper": (
        "ggml-base.en.bin",
        b"lmgg" + struct.pack("<ii", 51864, 1500) + bytes(90),
        "speech recognition.*whisper",
    ),
    "GGMF": ("x.bin", b"fmgg\1\0\0\0" + bytes(90), "old format GGMF,"),
    "GGJT": ("x.ggmlv3.q4_0.bin", b"tjgg\3\0\0\0" + bytes(90), "old format GGJT, of before August 2023.*in GGUF"),
    "GGLA": ("x.bin", b"algg\1\0\0\0" + bytes(90), "a LoRA adapter"),
    "Modelfile": (
        "Modelfile",
        b'# mine\nFROM ./big.gguf\nSYSTEM """Be short."""\n',
        r"an ollama Modelfile.*--model \./big\.gguf",
    ),
    "manifest": ("latest", json.dumps(MANIFEST).encode(), "a manifest of ollama.*blobs/sha256-aaaa"),
    "imatrix": ("imatrix.dat", struct.pack("<ii", 3, 18) + b"blk.0.attn_q.weight" + bytes(90), "an importance matrix"),
    "llamafile": ("x.llamafile", b"MZqFpD='\n" + bytes(90), "a llamafile"),
    "a program": ("x.gguf", b"\x7fELF\2\1\1" + bytes(90), "a program, not a model"),
    "zeros": ("x.gguf", bytes(9000), "begins with zeros"),
    "anything": ("x.gguf", bytes(range(128, 256)) * 9, "is not a GGUF file; specee-chat reads"),
    "three bytes": ("x.gguf", b"GGU", "not a GGUF file"),
    "only the magic": ("x.gguf", b"GGUF", "cut off"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_a_file_is(tmp_path: Path, kind: str) -> None:
    name, content, says = FILES[kind]
    (tmp_path / name).write_bytes(content)
    line = refusal(tmp_path / name)
    assert re.search(says, line), line


def test_the_blob_of_a_manifest_is_named(tmp_path: Path) -> None:
    """ollama's store: what a user finds in it can be given."""
    manifest = tmp_path / "manifests/registry.ollama.ai/library/x/latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps(MANIFEST))
    blob = tmp_path / "blobs" / f"sha256-{'a' * 64}"
    blob.parent.mkdir()
    tiny_gguf.write(blob, "llama")
    assert f"give {blob}" in refusal(manifest)
    assert gguf_header.read_model(resolve.resolve(str(blob)).path).architecture == "llama"
    assert "where ollama keeps its models" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        *("x.gguf.incomplete", "x.gguf.part", "x.gguf.crdownload", "x.gguf.download", "x.gguf.partial", "x.gguf.tmp"),
        *(f"{'a' * 64}.incomplete", f"{'a' * 64}.part", f"sha256-{'a' * 64}-partial"),
    ],
)
@pytest.mark.parametrize("content", ["cut", "zeros", "empty"])
def test_a_download_under_way(tmp_path: Path, name: str, content: str) -> None:
    whole = tiny_gguf.write(tmp_path / "tiny.gguf", "llama").read_bytes()
    (tmp_path / name).write_bytes({"cut": whole[:-9], "zeros": bytes(len(whole)), "empty": b""}[content])
    assert re.match("model incomplete: .* is a download that has not come to its end", refusal(tmp_path / name))
    (tmp_path / name).write_bytes(whole)
    assert resolve.resolve(str(tmp_path / name)).path.name == name  # all is there


def test_a_download_that_is_filled_in_any_order(tmp_path: Path) -> None:
    """Its beginning may be there, and its end, and holes between."""
    path = tiny_gguf.write(tmp_path / "x.gguf", "llama")
    (tmp_path / "x.gguf.aria2").touch()
    assert "still being downloaded" in refusal(path)
    path.write_bytes(bytes(99))
    assert "still being downloaded" in refusal(path)
    for ending in (".!qB", ".!ut", ".bc!"):
        path = tiny_gguf.write(tmp_path / f"x.gguf{ending}", "llama")
        assert "a download that has not come to its end" in refusal(path)


@pytest.mark.parametrize(
    "name",
    ["x.gguf.part1of2", "x.gguf-split-a", "x.gguf.001", "x.gguf.part2", "x.gguf.partaa", "x.Q8_0.gguf.part-2of3"],
)
def test_a_piece_of_a_file(tmp_path: Path, name: str) -> None:
    whole = tiny_gguf.write(tmp_path / "tiny.gguf", "llama").read_bytes()
    for piece in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
        (tmp_path / name).write_bytes(piece)
        assert re.search(
            r"is a piece of a file that was cut; join .*cat PIECE\.\.\. > x(\.Q8_0)?\.gguf", refusal(tmp_path / name)
        )


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    path.chmod(0)
    assert "you may not read it" in refusal(path)


def test_a_file_that_may_not_be_read_by_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from specee.models import local_file

    def refuse(path: Path) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(local_file, "open_to_read", refuse)
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    assert refusal(path).startswith(f"model not readable: {path}: you may not read it")


# ---- folders ---------------------------------------------------------------------------------------------------------


def projector(folder: Path) -> None:
    changed_gguf.write(tiny_gguf.write(folder / "x.tmp", "llama"), folder / "mmproj-x-f16.gguf", {}, arch="clip")
    (folder / "x.tmp").unlink()


def adapter(folder: Path) -> None:
    values = {"general.type": (Type.STRING, "adapter")}
    changed_gguf.write(tiny_gguf.write(folder / "x.tmp", "llama"), folder / "lora.gguf", values)
    (folder / "x.tmp").unlink()


def head(folder: Path) -> None:
    changed_gguf.write(tiny_gguf.write(folder / "x.tmp", "llama"), folder / "head.gguf", {}, arch="eagle3")
    (folder / "x.tmp").unlink()


@pytest.mark.parametrize("beside", [projector, adapter, head])
@pytest.mark.parametrize("is_split", [False, True])
def test_the_one_model_of_a_folder(tmp_path: Path, beside: Callable[[Path], None], is_split: bool) -> None:
    """What goes with a model does not count."""
    model = tiny_gguf.write(tmp_path / "big.gguf", "llama")
    if is_split:
        model, *_ = split_gguf.split(model, tmp_path, 3)
        (tmp_path / "big.gguf").unlink()
    beside(tmp_path)
    (tmp_path / "README.md").touch()
    assert resolve.resolve(str(tmp_path)).path == model
    tiny_gguf.write(tmp_path / "other.gguf", "llama")
    assert "is a folder with several models: big" in refusal(tmp_path)


def test_a_folder_with_what_goes_with_models(tmp_path: Path) -> None:
    projector(tmp_path)
    assert "a projector" in refusal(tmp_path)
    adapter(tmp_path)
    assert "GGUF files, none of which is a chat model: lora.gguf, mmproj-x-f16.gguf" in refusal(tmp_path)


def test_a_folder_with_many_models(tmp_path: Path) -> None:
    for i in range(9):
        tiny_gguf.write(tmp_path / f"m{i}.gguf", "llama", n_layer=1)
    assert "several models: m0.gguf, m1.gguf, m2.gguf, m3.gguf, m4.gguf, m5.gguf and more; give" in refusal(tmp_path)


def test_a_folder_that_may_not_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert "you may not look into its folder" in refusal(tmp_path / "x.gguf")


def test_the_one_model_of_a_folder_is_damaged(tmp_path: Path) -> None:
    projector(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert "x.gguf: it is cut off" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "a folder with no .gguf file; give the path of one file"),
        (["notes.txt"], "a folder with no .gguf file"),
        (
            ["config.json", "model-00001-of-00002.safetensors"],
            "the folder of a model in safetensors, not in GGUF; take",
        ),
        (["config.json", "pytorch_model.bin"], "a model in PyTorch's format, not in GGUF"),
        (["config.json", "tokenizer.json"], "the folder of a model, not in GGUF"),
        (["adapter_config.json", "adapter_model.safetensors"], "a LoRA adapter"),
        (["model.onnx"], "an ONNX model"),
        (["saved_model.pb"], "a TensorFlow model"),
        (["config.json", "openvino_model.xml", "openvino_model.bin"], "an OpenVINO model"),
        (["mlc-chat-config.json", "params_shard_0.bin"], "a model for MLC"),
        (["config.json", "model.safetensors", "x.onnx"], "an ONNX model"),
        (["Q4_K_M/x.gguf", "Q8_0/y.gguf"], "in those below it: Q4_K_M/x.gguf, Q8_0/y.gguf; give the path of one"),
    ],
)
def test_folders_without_a_model(tmp_path: Path, names: list[str], says: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert says in refusal(tmp_path)


def test_a_folder_of_the_hubs_cache(tmp_path: Path, cache_dir: Path) -> None:
    blob = cache.blob("owner/x-GGUF", "1" * 64)
    blob.parent.mkdir(parents=True)
    tiny_gguf.write(blob, "llama")
    path = cache.link("owner/x-GGUF", "main", "a" * 40, "x-Q8_0.gguf", "1" * 64)
    assert "(owner/x-GGUF); give hf:owner/x-GGUF" in refusal(cache.folder("owner/x-GGUF"))
    assert resolve.resolve(str(path.parent)).path == path


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("https://huggingface.co/o/r-GGUF/resolve/main/x-Q4_0.gguf?download=true", "give hf:o/r-GGUF:x-Q4_0.gguf"),
        ("https://huggingface.co/o/r-GGUF/blob/main/x-Q4_0.gguf", "give hf:o/r-GGUF:x-Q4_0.gguf"),
        ("https://hf.co/o/r-GGUF", "give hf:o/r-GGUF$"),
        ("https://example.org/x.gguf", "download the file, and give its path"),
    ],
)
def test_an_address(address: str, says: str) -> None:
    assert re.search(says, refusal(address))


@pytest.mark.parametrize("name", ["hf.co/owner/repo:Q4_0", "huggingface.co/owner/repo:Q4_0", "hf:owner/repo:Q4_0"])
def test_names_as_ollama_has_them(name: str) -> None:
    found = resolve.interpret(name)
    assert found.source is not None and (found.source.repo, found.source.quant) == ("owner/repo", "Q4_0")
