"""What a file is that is no GGUF file, from its first and last bytes and its name: what to do with it differs."""

from __future__ import annotations

import codecs
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from specee.models import architectures
from specee.models.errors import ModelError
from specee.models.model_kind import CHAT_MODEL

HEAD_BYTES, TAIL_BYTES = 4096, 1 << 16
MAX_SHOWN = 60  # characters of a text in a file
WHISPER_WINDOW = 1500  # n_audio_ctx, the second number of its file; llama.cpp's had the width there
MOSTLY = 0.85  # of the letters of a text in an encoding in which every byte is a letter are plain ones

CONVERT = "take the model's GGUF file (repositories with such files often end in -GGUF), or convert it with llama.cpp"
UNPACK = "unpack it, and give the .gguf file in it"
AGAIN = "download it again, from the link to the file itself"

_UNFINISHED = re.compile(
    r"\.(incomplete|part|partial|crdownload|download|opdownload|filepart|tmp|temp|aria2|!ut|!qb|bc!)$|-partial(-\d+)?$",
    re.IGNORECASE,
)
_FILLED_IN_ANY_ORDER = re.compile(r"\.(!ut|!qb|bc!)$", re.IGNORECASE)
_PIECE = re.compile(
    r"\.gguf[.-]?(part[-_.]?\d+([-_.]?of[-_.]?\d+)?|part[-_.]?[a-z]{1,2}|split-?[a-z]{1,2}|\d{2,3})$", re.I
)
_LFS = re.compile(r"version https://git-lfs\.github\.com/spec/\S+\s+oid \S+\s+size (\d{1,18})")
_ANNEX = re.compile(r"/?(?:\.git/)?annex/objects/\S*?(?:-s(\d{1,18})\S*)?--\S+\s*$")
_XET = re.compile(r"# xet version \d+\s+filesize = (\d{1,18})")
_MARKUP = re.compile(r"(?:<!--.*?-->|<\?xml[^>]*>|\s)*<(!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_FROM = re.compile(r"^\s*FROM\s+(\S.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_OLLAMA_MODEL = "application/vnd.ollama.image.model"
_INSIDE = re.compile(rb"[\w.+() -]{1,80}\.gguf", re.IGNORECASE)

_OLD = {
    b"lmgg": "GGML",
    b"fmgg": "GGMF",
    b"tjgg": "GGJT",
    b"algg": "GGLA (a LoRA adapter)",
}
"""llama.cpp's formats before GGUF (until August 2023): numbers that were written with their last byte first."""

_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
}
_PROGRAMS = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"#!")
_FRAMEWORKS = {"onnx": "an ONNX model", "tflite": "a TFLite model", "pb": "a TensorFlow model", "h5": "a Keras model"}
_FRAMEWORKS |= {"keras": "a Keras model", "mlmodel": "a Core ML model", "engine": "a TensorRT model"}
_FRAMEWORKS |= {"npz": "a NumPy archive (as MLX has them)", "npy": "a NumPy array", "msgpack": "a Flax model"}
_PICKLES = {"pt", "pth", "bin", "ckpt", "pkl"}


@dataclass(frozen=True)
class _Bytes:
    path: Path
    head: bytes
    tail: bytes
    size: int

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower().removeprefix(".")

    @property
    def text(self) -> str | None:
        """The beginning as text, if it is one."""
        utf_16 = self.head[:2] in (b"\xff\xfe", b"\xfe\xff")
        for encoding in ("utf-16",) if utf_16 else ("utf-8-sig", "cp1252"):
            with suppress(UnicodeDecodeError):
                found = codecs.getincrementaldecoder(encoding)().decode(self.head)  # its end may be half a letter
                is_text = all(sign.isprintable() or sign in "\t\n\r\f" for sign in found)
                n_plain = sum(sign.isascii() for sign in found)
                if found.strip() and is_text and (encoding != "cp1252" or n_plain > MOSTLY * len(found)):
                    return found
        return None


def describe(path: Path, file: BinaryIO) -> tuple[str, str]:
    """What the file is instead, as it goes on after its name, and what to do."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(max(0, size - TAIL_BYTES))
    found = _Bytes(path, head, file.read(TAIL_BYTES), size)
    for kind in (_empty, _old, _archive, _pytorch, _safetensors, _framework, _program, _imatrix, _text, _zeros):
        if (told := kind(found)) is not None:
            return told
    return "is not a GGUF file", "specee-chat reads models in the GGUF format"


def unfinished(path: Path) -> ModelError | None:
    """For a file that cannot be read: whether its name says that it is still being downloaded, or is a piece."""
    if _PIECE.search(path.name):
        whole = path.with_name(path.name[: path.name.lower().rindex(".gguf") + 5])
        return ModelError(
            "model incomplete",
            f"{path} is a piece of a file that was cut; join all pieces in their order: cat PIECE... > {whole.name}",
        )
    if _UNFINISHED.search(path.name):
        return ModelError(
            "model incomplete", f"{path} is a download that has not come to its end; let it go on, or begin it again"
        )
    return still_arriving(path)


def still_arriving(path: Path) -> ModelError | None:
    """For any file, also one that looks whole: some programs take all the room at once and fill it in any order."""
    if _FILLED_IN_ANY_ORDER.search(path.name):
        return ModelError("model incomplete", f"{path} is a download that has not come to its end; let it go on")
    if path.with_name(f"{path.name}.aria2").exists():
        return ModelError(
            "model incomplete", f"{path} is still being downloaded (by aria2, which keeps {path.name}.aria2)"
        )
    return None


def _empty(file: _Bytes) -> tuple[str, str] | None:
    return None if file.head else ("is empty", "get the file again")


def _zeros(file: _Bytes) -> tuple[str, str] | None:
    if file.head.strip(b"\0"):
        return None
    return "begins with zeros: a download that has not come to its end, or a damaged disk", "get the file again"


def _old(file: _Bytes) -> tuple[str, str] | None:
    name = _OLD.get(file.head[:4])
    if name is None:
        return None
    if int.from_bytes(file.head[8:12], "little") == WHISPER_WINDOW:
        return f"is {architectures.HEARS} (whisper.cpp's format)", CHAT_MODEL
    return f"is in llama.cpp's old format {name}, of before August 2023", "take a newer file of the model, in GGUF"


def _archive(file: _Bytes) -> tuple[str, str] | None:
    inside = _INSIDE.search(file.head) or _INSIDE.search(file.tail)
    if file.head[:2] == b"PK":
        if b"data.pkl" in file.head or b"data.pkl" in file.tail:
            return None
        if file.suffix == "npz" or b".npy" in file.head:
            return f"is {_FRAMEWORKS['npz']}, not GGUF", CONVERT
        return "is a zip archive", _unpack(inside)
    if file.head[257:262] == b"ustar":
        return "is a tar archive", _unpack(inside)
    name = next((name for magic, name in _ARCHIVES.items() if file.head.startswith(magic)), None)
    return None if name is None else (f"is compressed ({name})", _unpack(inside))


def _unpack(inside: re.Match[bytes] | None) -> str:
    return UNPACK if inside is None else f"unpack it, and give {inside[0].decode('utf-8', 'replace').strip()}"


def _pytorch(file: _Bytes) -> tuple[str, str] | None:
    is_pickle = file.head[:1] == b"\x80" and file.head[1:2] in (b"\2", b"\3", b"\4", b"\5")
    if file.head[:2] == b"PK" or is_pickle:
        return "is a PyTorch file, not GGUF", CONVERT
    return None


def _safetensors(file: _Bytes) -> tuple[str, str] | None:
    length = int.from_bytes(file.head[:8], "little")
    if file.head[8:9] == b"{" and 2 <= length <= file.size - 8:
        if b"lora_" in file.head:
            return "is a LoRA adapter in safetensors, not a model in GGUF", "take a GGUF file that it is merged into"
        return "is in safetensors, not GGUF", CONVERT
    return None


def _framework(file: _Bytes) -> tuple[str, str] | None:
    if file.head[:4] == b"\x89HDF":
        return f"is {_FRAMEWORKS['h5']}, not GGUF", CONVERT
    if file.head[4:8] == b"TFL3":
        return f"is {_FRAMEWORKS['tflite']}, not GGUF", CONVERT
    if file.head[:6] == b"\x93NUMPY":
        return f"is {_FRAMEWORKS['npy']}, not GGUF", CONVERT
    is_onnx = file.head[:1] == b"\x08" and (b"onnx" in file.head[:200].lower() or b"pytorch" in file.head[:200])
    name = _FRAMEWORKS["onnx"] if is_onnx else _FRAMEWORKS.get(file.suffix)
    if name is None and file.suffix in _PICKLES and file.text is None:
        return "is no GGUF file; files of this ending are mostly PyTorch's", CONVERT
    return None if name is None or file.text is not None else (f"is {name}, not GGUF", CONVERT)


def _program(file: _Bytes) -> tuple[str, str] | None:
    if not file.head.startswith(_PROGRAMS):
        return None
    if file.suffix == "llamafile" or file.head.startswith(b"MZqFpD") or _INSIDE.search(file.tail):
        return "is a llamafile, a program with a model in it", f"run it, or {UNPACK} (unzip)"
    return "is a program, not a model", "specee-chat reads models in the GGUF format"


def _imatrix(file: _Bytes) -> tuple[str, str] | None:
    if re.match(rb".{4}.{4}(blk\.\d+\.|output\.weight|token_embd)", file.head[:64], re.DOTALL):
        return "is an importance matrix (imatrix), which helps to quantize a model", "give the model's own file"
    return None


def _text(file: _Bytes) -> tuple[str, str] | None:
    text = file.text
    if text is None:
        return None
    if (size := _pointer(text)) is not None:
        return size
    if _MARKUP.match(text):
        return "is a web page that was saved under this name", AGAIN
    if text.lstrip().startswith("{") and (found := _json(file, text)) is not None:
        return found
    if (base := _FROM.search(text)) is not None:
        to_do = f"give what stands after FROM (--model {_shown(base[1])}), and its SYSTEM as --system"
        return "is an ollama Modelfile, not a model", to_do
    return f"is not a GGUF file but a text ({_shown(text)!r})", "give the path of a model's GGUF file"


def _pointer(text: str) -> tuple[str, str] | None:
    for pattern, what, how in (
        (_LFS, "a Git LFS pointer", "git lfs pull"),
        (_XET, "a Git Xet pointer", "git xet checkout"),
        (_ANNEX, "a git-annex pointer", "git annex get"),
    ):
        if found := pattern.match(text):
            size = f" ({_bytes(int(found[1]))})" if found[1] else ""
            return f"is {what}: the model itself{size} was not fetched", f"{how}, in that folder, fetches it"
    return None


def _json(file: _Bytes, text: str) -> tuple[str, str] | None:
    try:
        values = json.loads(text) if file.size <= HEAD_BYTES else {}
    except (ValueError, RecursionError):
        values = {}
    if not isinstance(values, dict):
        return None
    layers = values.get("layers")
    if isinstance(layers, list):
        digests = [layer.get("digest") for layer in layers if isinstance(layer, dict) and _OLLAMA_MODEL in str(layer)]
        model = next((str(digest) for digest in digests if re.fullmatch(r"sha256:[0-9a-f]{64}", str(digest))), None)
        if model is not None:
            name = model.replace(":", "-")
            blob = next((blob for folder in file.path.parents if (blob := folder / "blobs" / name).exists()), None)
            return "is a manifest of ollama; the model is a blob of its", f"give {blob or f'blobs/{name}'}"
    if (error := values.get("error") or values.get("message")) is not None:
        return f"is a server's message in place of the file ({_shown(str(error))!r})", AGAIN
    if "architectures" in values or "model_type" in values:
        return "is the description of a model (config.json), not the model", CONVERT
    return None


def _shown(text: str) -> str:
    """The beginning of a text of others, in a line and without what steers a terminal."""
    line = " ".join(text.split())
    return "".join(sign if sign.isprintable() else "�" for sign in line[:MAX_SHOWN])


def _bytes(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"
