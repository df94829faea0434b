"""A model on the hub: which repository, and which of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from specee.models.errors import ModelError
from specee.models.hub_names import REPO_PATTERN, is_file, is_repo

DEFAULT_QUANT = "Q4_K_M"
HUB = "hf:"

_REFERENCE = re.compile(
    rf"(?P<hub>{HUB}|hf\.co/|huggingface\.co/)?(?P<repo>{REPO_PATTERN})(?::(?P<quant>[A-Za-z0-9_.-]+))?"
)
_ADDRESS = re.compile(
    rf"https?://(?:www\.)?(?:hf|huggingface)\.co/(?P<repo>{REPO_PATTERN})"
    r"(?:/(?:resolve|blob|raw)/[^/?#]+/(?:[^?#]*/)?(?P<file>[^/?#]+\.gguf))?",
    re.IGNORECASE,
)
_QUANT = re.compile(r"(?:ud-)?(?:i?q\d|tq\d|bf16|f16|f32|mxfp4)\w*", re.IGNORECASE)
_PART = re.compile(
    r"(?P<before>[-_. ](?:part[-_. ]?)?)(?P<no>\d{1,5})(?P<of>[-_. ]?of[-_. ]?)(?P<count>\d{1,5})(?P<ending>\.gguf)$",
    re.IGNORECASE,
)
"""`x-00001-of-00003.gguf` is llama.cpp's way; people and programs rename files."""
_NOT_A_MODEL = re.compile(r"(^|/)(mmproj|imatrix)|imatrix\.gguf$", re.IGNORECASE)
_DRAFTS = re.compile(r"(^|[/._-])(eagle3|dflash\d*|dspark|mtp)[/._-]", re.IGNORECASE)
"""Draft heads lie beside some models. A repository of such files alone is one of heads, or of models with layers that
draft."""


@dataclass(frozen=True)
class Source:
    """Where a model comes from. Without `file` it is chosen by `quant`, without that as DEFAULT_QUANT if there is one.

    `sha256` is what the file must have, where that is known beforehand.
    """

    repo: str
    revision: str = "main"
    file: str | None = None
    quant: str | None = None
    sha256: str | None = None


def parse(text: str) -> Source | None:
    """The repository that `hf:owner/repo[:quant]`, `owner/repo:quant` or (ollama's way) `hf.co/owner/repo` means; None
    when it is none of these."""
    found = _REFERENCE.fullmatch(text)
    if found is None or not is_repo(found["repo"]) or not (found["hub"] or found["quant"]):
        return None
    return Source(found["repo"], quant=found["quant"])


def address_of(text: str) -> str | None:
    """How the repository or the file is written that is at this address of the hub; None for any other address."""
    found = _ADDRESS.match(text)
    if found is None or not is_repo(found["repo"]):
        return None
    return f"{HUB}{found['repo']}:{found['file']}" if found["file"] else f"{HUB}{found['repo']}"


def is_quant(text: str) -> bool:
    """Whether this is how quantizations are named, as q8_0."""
    return _QUANT.fullmatch(text) is not None


def choose(source: Source, names: Iterable[str]) -> tuple[str, ...]:
    """The files to take of those that there are: one, or all parts of a split model. Raises ModelError.

    Names that could lead out of the repository are passed over.
    """
    models = sorted(n for n in names if n.lower().endswith(".gguf") and not _NOT_A_MODEL.search(n) and is_file(n))
    firsts = [n for n in models if (part := _PART.search(n)) is None or int(part["no"]) == 1]
    firsts = [n for n in firsts if not _DRAFTS.search(n)] or firsts
    if not firsts:
        raise ModelError("no model there", f"{source.repo} has no GGUF file; such repositories often end in -GGUF")
    wanted = source.file or _of_quant(source, firsts)
    files = parts(wanted)
    missing = [name for name in files if name not in models]
    if missing:
        raise ModelError("no such file", f"{source.repo} has no {missing[0]}; it has {', '.join(firsts[:8])}")
    return files


def _of_quant(source: Source, firsts: list[str]) -> str:
    quant = parts(source.quant)[0] if source.quant else DEFAULT_QUANT  # a part's name, too
    named = re.compile(rf"(?<![a-z0-9]){re.escape(quant)}(?![a-z0-9_])", re.IGNORECASE)
    found = next((name for name in firsts if named.search(name)), None)
    if found is None and source.quant is not None:
        raise ModelError("no such quantization", f"{source.repo} has no {quant}; it has {', '.join(firsts[:8])}")
    return found or firsts[0]


def name_of(file: str) -> str:
    """A model's name from that of its file, without its ending and the number of the part."""
    return file[: found.start()] if (found := _PART.search(file)) is not None else PurePath(file).stem


def parts(file: str) -> tuple[str, ...]:
    """All files of a model that `file` is one of: of `x-00001-of-00003.gguf` three, else the file itself."""
    split = _PART.search(file)
    if split is None or not 1 <= int(split["no"]) <= int(split["count"]):
        return (file,)
    digits = 1 if len(split["no"]) < len(split["count"]) else len(split["no"])
    before, behind = file[: split.start("no")], file[split.end("no") :]
    return tuple(f"{before}{i:0{digits}}{behind}" for i in range(1, int(split["count"]) + 1))
