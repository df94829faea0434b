"""Which models draft for which."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_eagle
import tiny_gguf

from specee.models import draft_model, embedded, gguf_header, head_fit, model_kind
from specee.models.errors import MISSING, ModelError
from specee.models.gguf_header import Header


@pytest.fixture
def target(tmp_path: Path) -> Header:
    return gguf_header.read_model(tiny_gguf.write(tmp_path / "target.gguf", "llama"))


def changed(source: Path, path: Path, old: bytes, new: bytes) -> Header:
    """The model with other bytes, of the same number, in its header."""
    data = source.read_bytes()
    assert len(old) == len(new) and data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    return gguf_header.read_model(path)


def refusal(target: Header, draft: Header) -> str:
    with pytest.raises(ModelError) as caught:
        draft_model.check(target, draft)
    assert caught.value.exit_code == MISSING and "\n" not in caught.value.message
    return caught.value.message


def test_a_model_with_the_same_vocabulary_fits(target: Header, tmp_path: Path) -> None:
    for arch in tiny_gguf.ARCHITECTURES:
        path = tiny_gguf.write(tmp_path / f"{arch}.gguf", arch, n_layer=1, seed=3)
        draft_model.check(target, gguf_header.read_model(path))
    shutil.copy(target.path, tmp_path / "copy.gguf")
    draft_model.check(target, gguf_header.read_model(tmp_path / "copy.gguf"))


def test_padding_at_the_end_may_be_missing(target: Header, tmp_path: Path) -> None:
    n_vocab = tiny_gguf.N_VOCAB - 2
    shorter = gguf_header.read_model(tiny_gguf.write(tmp_path / "shorter.gguf", "llama", n_vocab=n_vocab))
    draft_model.check(target, shorter)
    draft_model.check(shorter, target)
    longer = gguf_header.read_model(tiny_gguf.write(tmp_path / "longer.gguf", "llama", n_vocab=300))
    assert "its vocabulary has 300 tokens, the model's has 96" in refusal(target, longer)


def test_the_first_difference_is_named(target: Header, tmp_path: Path) -> None:
    other = changed(target.path, tmp_path / "other.gguf", b"x95", b"y95")
    assert "other tokens than the model's, 'y95' for 'x95' as token 95" in refusal(target, other)
    special = changed(target.path, tmp_path / "special.gguf", b"<unk>", b"<pad>")
    draft_model.check(target, special)  # as in llama.cpp, the first few may differ


def test_the_model_itself_is_refused(target: Header, tmp_path: Path) -> None:
    (tmp_path / "link.gguf").symlink_to(target.path)
    assert "it is the model itself" in refusal(target, gguf_header.read_model(tmp_path / "link.gguf"))


def test_another_tokenizer_is_named(target: Header) -> None:
    path = embedded.path()
    if path is None:
        pytest.skip("built without the embedded model")
    assert "its tokenizer is gpt2, the model's is llama" in refusal(target, gguf_header.read_model(path))


def test_an_eagle3_head_fits_its_model(target: Header, tmp_path: Path) -> None:
    def head(name: str, layers: tuple[int, ...] = (1, 3, 5), **shape: Any) -> Header:
        return gguf_header.read_model(tiny_eagle.write(tmp_path / f"{name}.gguf", target.path, layers, **shape))

    fits = head("fits")
    draft_model.check(target, fits)
    draft_model.check(target, head("short", n_known=40))
    assert head_fit.target_layers(fits) == (1, 3, 5) and head_fit.target_layers(target) == ()
    assert "an EAGLE-3 head for a model of width 32, this one has 64" in refusal(target, head("narrow", hidden=32))
    strange = head("strange", n_known=40, first_known=90)
    assert "for tokens that there are not" in refusal(target, strange)
    assert "reads layers 1, 3, 9 of a model, this one has 6" in refusal(target, head("deep", (1, 3, 9)))
    other = gguf_header.read_model(tiny_gguf.write(tmp_path / "other.gguf", "llama"))
    changed_vocabulary = changed(other.path, tmp_path / "changed.gguf", b"x95", b"y95")
    assert "'x95' for 'y95' as token 95" in refusal(changed_vocabulary, fits)
    with pytest.raises(ModelError, match="it drafts for another model and cannot answer alone"):
        model_kind.check_answers(fits)
    model_kind.check_answers(target)


FIT = {
    "all tokens": {},
    "of the model": {"own_embeddings": False, "own_head": False, "norm_before_fc": True},
    "its embeddings": {"own_embeddings": False, "n_known": 40, "norm_before_residual": True},
    "its LM head": {"own_head": False, "rope_factors": True},
    "longer heads": {"head_dim": 32, "half": True},
    "another width": {"width": 96, "n_known": 40},
    "padding": {"n_vocab": 100},
}
UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "twice": ({"layers": (2, 2, 5)}, "that reads layers 2, 2, 5 of a model, this one has 6"),
    "two": ({"layers": (2, 5)}, "that reads layers 2, 5 of a model"),
    "first": ({"layers": (0, 2, 5)}, "that reads layers 0, 2, 5 of a model"),
    "width": ({"width": 96, "own_head": False}, "without an LM head, and of another width"),
    "both": (
        {"width": 96, "own_embeddings": False, "own_head": False},
        "without embeddings and an LM head, and of another width",
    ),
    "some tokens": ({"own_head": False, "n_known": 40}, "without an LM head, and for other tokens"),
    "more tokens": ({"own_head": False, "n_vocab": 100}, "without an LM head, and for other tokens"),
    "values": ({"head_dim": 32, "value_dim": 16}, "cannot run: its keys and values are of different lengths"),
    "embeddings": ({"n_embeddings": 90}, "cannot run: it has fewer embeddings than tokens"),
    "vocabulary": ({"n_vocab": 300}, "its vocabulary has 300 tokens, the model's has 96"),
}


@pytest.mark.parametrize("how", FIT)
def test_heads_of_all_kinds_fit(target: Header, tmp_path: Path, how: str) -> None:
    head = tiny_eagle.write(tmp_path / "head.gguf", target.path, (1, 3, 5), **FIT[how])  # type: ignore[arg-type]
    draft_model.check(target, gguf_header.read_model(head))


@pytest.mark.parametrize("how", UNFIT)
def test_heads_that_llama_cpp_would_not_survive_are_refused(target: Header, tmp_path: Path, how: str) -> None:
    shape, says = UNFIT[how]
    head = tiny_eagle.write(tmp_path / "head.gguf", target.path, shape.pop("layers", (1, 3, 5)), **shape)
    assert says in refusal(target, gguf_header.read_model(head))


def test_other_heads_are_named(target: Header, tmp_path: Path) -> None:
    path = tiny_eagle.write(tmp_path / "head.gguf", target.path, (1, 3, 5))
    data = path.read_bytes()
    (tmp_path / "dflash.gguf").write_bytes(data.replace(b"eagle3", b"dflash"))
    dflash = gguf_header.read_model(tmp_path / "dflash.gguf")
    assert "a DFlash head, which specee-chat does not run" in refusal(target, dflash)


@pytest.mark.parametrize(
    ("model", "drafter"),
    [("qwen2.5-7b", "qwen2.5-0.5b"), ("llama2-7b-q4:q5_k_m", "tinyllama-1.1b"), ("qwen2.5-0.5b", None), (None, None)],
)
def test_pairs(model: Any, drafter: Any, cache_dir: Path) -> None:
    pair = draft_model.paired(model)
    assert pair == (None if drafter is None else draft_model.Pair(drafter, None))


def test_a_paired_model_that_is_here_has_a_path(cache_dir: Path) -> None:
    pair = draft_model.paired("smollm2-1.7b")
    assert pair is not None and pair.path == embedded.path()
