"""Models in several files: which file leads to them, what is counted, and what is said of parts that are not right."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import split_gguf
import tiny_gguf

from specee.models import (
    cache,
    file_hash,
    gguf_header,
    model_hash,
    model_structure,
    requantize,
    resolve,
    source,
    split_file,
)
from specee.models.errors import MISSING, ModelError

N = 3


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return tiny_gguf.write(tmp_path / "whole.gguf", "llama")


@pytest.fixture
def parts(whole: Path, tmp_path: Path) -> list[Path]:
    folder = tmp_path / "parts"
    folder.mkdir()
    return split_gguf.split(whole, folder, N, name="big-Q8_0")


def opened(name: Path | str) -> gguf_header.Header:
    return gguf_header.read_model(resolve.resolve(str(name)).path)


def refusal(name: Path | str) -> str:
    with pytest.raises(ModelError) as told:
        opened(name)
    assert told.value.exit_code == MISSING and "\n" not in str(told.value)
    return str(told.value)


def test_all_parts_count(whole: Path, parts: list[Path], tmp_path: Path) -> None:
    one, several = gguf_header.read_model(whole), opened(parts[0])
    assert [(t.name, t.shape, t.type) for t in several.tensors] == [(t.name, t.shape, t.type) for t in one.tensors]
    for tensor, same in zip(several.tensors, one.tensors, strict=True):
        stored = several.files[tensor.part].read_bytes()[tensor.offset :][: tensor.n_bytes]
        assert stored == whole.read_bytes()[same.offset :][: same.n_bytes]
    assert several.files == tuple(parts) and several.file_bytes == sum(path.stat().st_size for path in parts)
    a, b = model_structure.read(one), model_structure.read(several)
    assert (a.parameters, a.weight_bytes, a.memory(512)) == (b.parameters, b.weight_bytes, b.memory(512))


def test_it_has_the_hash_of_the_whole_file(whole: Path, parts: list[Path], tmp_path: Path) -> None:
    """What was learned of a model belongs to its hash."""
    digest, cache_dir = file_hash.sha256(whole), tmp_path / "cache"
    several = opened(parts[0])
    assert model_hash.known(several.files, cache_dir) is None
    assert model_hash.of_model(several, cache_dir) == digest == model_hash.of_model(opened(whole))
    assert model_hash.known(several.files, cache_dir) == digest
    assert file_hash.known_files(cache_dir) == [parts[0]], "as a model that has run here"
    stored = bytearray(parts[2].read_bytes())
    stored[several.tensors[-1].offset] ^= 1
    parts[2].write_bytes(stored)
    assert model_hash.known(several.files, cache_dir) is None
    assert model_hash.of_model(several, cache_dir) == model_hash.of_model(several) != digest


@pytest.mark.parametrize(
    "name",
    ["x-{:05}-OF-{:05}.gguf", "x-{:05}-Of-{:05}.GGUF", "x_{:05}_of_{:05}.gguf", "x.part{}of{}.gguf", "x-{}-of-{}.gguf"],
)
def test_parts_by_other_names(whole: Path, parts: list[Path], tmp_path: Path, name: str) -> None:
    (tmp_path / "named").mkdir()
    named = [path.rename(tmp_path / "named" / name.format(i, len(parts))) for i, path in enumerate(parts, 1)]
    for given in named:
        assert opened(given).files == tuple(named)
    path = split_file.for_llama_cpp(tuple(named), tmp_path / "cache")
    assert path.name.endswith(f"-00001-of-{len(parts):05}.gguf")
    assert opened(path).file_bytes == opened(named[0]).file_bytes
    assert split_file.for_llama_cpp(tuple(named), tmp_path / "cache") == path
    named[-1].unlink()
    for given in named[:-1]:
        assert named[-1].name in refusal(given)


@pytest.mark.parametrize("at", range(N))
def test_any_part_leads_to_the_model(parts: list[Path], at: int) -> None:
    found = resolve.resolve(str(parts[at]))
    assert found.path == parts[0] and found.name == "big-Q8_0"


def test_the_folder_of_a_split_model(parts: list[Path], whole: Path) -> None:
    assert resolve.resolve(str(parts[0].parent)).path == parts[0]
    shutil.copy(whole, parts[0].parent)
    assert "several models: big-Q8_0-00001-of-00003.gguf, whole.gguf" in refusal(parts[0].parent)


@pytest.mark.parametrize("at", range(N))
def test_a_folder_without_one_of_the_parts(parts: list[Path], at: int) -> None:
    """The others are not so many models."""
    parts[at].unlink()
    assert parts[at].name in refusal(parts[0].parent) and "not beside it" in refusal(parts[0].parent)


def test_a_first_part_without_tensors(whole: Path, tmp_path: Path) -> None:
    first, *others = split_gguf.split(whole, tmp_path, 2, first_is_empty=True)
    assert opened(first).tensors and opened(others[0]).path == first


def test_one_part_is_a_whole_model(whole: Path, tmp_path: Path) -> None:
    (only,) = split_gguf.split(whole, tmp_path, 1)
    assert opened(only).files == (only,)
    renamed = only.rename(tmp_path / "renamed.gguf")
    assert opened(renamed).files == (renamed,)


def test_a_whole_model_with_the_name_of_a_part(whole: Path, tmp_path: Path) -> None:
    """What the header says counts."""
    for name in ("x-00001-of-00003.gguf", "x-00002-of-00003.gguf", "x-00000-of-00000.gguf", "x-00009-of-00003.gguf"):
        shutil.copy(whole, tmp_path / name)
        assert opened(tmp_path / name).files == (tmp_path / name,)
        (tmp_path / name).unlink()


# ---- links ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cached(parts: list[Path], cache_dir: Path) -> list[Path]:
    """In the hub's cache: names that are links to files named by their hashes."""
    paths = []
    for part in parts:
        blob = cache.blob("owner/big-GGUF", file_hash.sha256(part))
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(part, blob)
        paths.append(cache.link("owner/big-GGUF", "main", "c" * 40, part.name, blob.name))
    return paths


@pytest.mark.parametrize("name", ["owner/big-GGUF:q8_0", "hf:owner/big-GGUF", 0, 1, 2])
def test_parts_behind_the_links_of_the_hubs_cache(cached: list[Path], name: str | int) -> None:
    given = str(cached[name]) if isinstance(name, int) else name
    found = opened(given)
    assert found.files == tuple(cached)


def test_links_from_elsewhere(cached: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the name of the part, under another one, over two links, relative, and from the current folder."""
    here = tmp_path / "here"
    here.mkdir()
    for name, target in (
        (cached[0].name, cached[0]),
        ("model.gguf", cached[0]),
        ("later.gguf", cached[2]),
        ("second.gguf", Path("model.gguf")),
        ("relative.gguf", Path(os.path.relpath(cached[1], here))),
    ):
        (here / name).symlink_to(target)
        assert opened(here / name).path == cached[0], name
    monkeypatch.chdir(here)
    assert opened("model.gguf").path == cached[0] and opened("./second.gguf").path == cached[0]


def test_each_part_a_link_of_its_own(parts: list[Path], tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for i, part in enumerate(parts):
        blob = part.rename(part.with_name(f"blob{i}"))
        (links / part.name).symlink_to(blob)
    assert opened(links / parts[1].name).files == tuple(links / part.name for part in parts)


def test_a_missing_part_of_the_cache_is_pulled(cached: list[Path]) -> None:
    cached[1].unlink()
    assert f"{cached[1].name} is not beside it; specee-chat models pull hf:owner/big-GGUF:{cached[0].name}" in refusal(
        cached[0]
    )
    with pytest.raises(resolve.NotHere, match="models pull hf:owner/big-GGUF"):
        resolve.resolve("hf:owner/big-GGUF")


def test_a_cache_behind_a_link(cached: list[Path], cache_dir: Path) -> None:
    moved = cache_dir.rename(cache_dir.with_name("moved"))
    cache_dir.symlink_to(moved)
    assert opened(cached[1]).path == moved / cached[0].relative_to(cache_dir)
    assert opened("hf:owner/big-GGUF").files == tuple(cached)
    cached[1].unlink()
    for given in (cached[0], cached[2], moved / cached[0].relative_to(cache_dir)):
        assert "specee-chat models pull hf:owner/big-GGUF:" in refusal(given)


# ---- parts that are not right ----------------------------------------------------------------------------------------


def other(parts: list[Path], **kind: object) -> list[Path]:
    """Parts of another model, of the same shape or (`n_layer`) not."""
    folder = parts[0].parent.parent / "other"
    folder.mkdir()
    model = tiny_gguf.write(folder / "other.gguf", "llama", seed=9, **kind)  # type: ignore[arg-type]
    return split_gguf.split(model, folder, N)


WRONG: dict[str, tuple[Callable[[list[Path]], object], int, str]] = {
    "the second is missing": (
        lambda p: p[1].unlink(),
        0,
        "part 1 of 3, and big-Q8_0-00002-of-00003.gguf is not beside",
    ),
    "two are missing": (
        lambda p: (p[1].unlink(), p[2].unlink()),
        0,
        "00002-of-00003.gguf, big-Q8_0-00003-of-00003.gguf are",
    ),
    "the first is missing": (
        lambda p: p[0].unlink(),
        2,
        "is part 3 of 3, and /.*/big-Q8_0-00001-of-00003.gguf, the part",
    ),
    "only a later one": (
        lambda p: (p[0].unlink(), p[2].unlink()),
        1,
        "is part 2 of 3, and .*00001-of-00003.gguf, the part",
    ),
    "cut off": (
        lambda p: p[2].write_bytes(p[2].read_bytes()[:-999]),
        0,
        "damaged model: .*00003-of-00003.gguf: it is cut off",
    ),
    "cut within its header": (
        lambda p: p[1].write_bytes(p[1].read_bytes()[:99]),
        0,
        "00002-of-00003.gguf: it is cut off",
    ),
    "empty": (lambda p: p[1].write_bytes(b""), 0, "not a model: .*00002-of-00003.gguf is empty"),
    "a web page": (lambda p: p[1].write_bytes(b"<!DOCTYPE html><html>"), 0, "00002-of-00003.gguf is a web page"),
    "a pointer": (
        lambda p: p[1].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 42000000\n"),
        0,
        "00002-of-00003.gguf is a Git LFS pointer.*42.0 MB",
    ),
    "twice the same": (
        lambda p: shutil.copy(p[1], p[2]),
        0,
        "00003-of-00003.gguf is named part 3 of 3, and is part 2 of 3",
    ),
    "exchanged": (
        lambda p: (p[1].rename("x"), p[2].rename(p[1]), Path("x").rename(p[2])),
        0,
        "named part 2 of 3, and is part 3",
    ),
    "of a model in more parts": (
        lambda p: shutil.copy(split_gguf.split(p[0].parent.parent / "whole.gguf", p[0].parent.parent, 5)[1], p[1]),
        0,
        "named part 2 of 3, and is part 2 of 5",
    ),
    "a whole model": (
        lambda p: shutil.copy(p[0].parent.parent / "whole.gguf", p[1]),
        0,
        "named part 2 of 3, and is no part",
    ),
    "of a larger model": (
        lambda p: shutil.copy(other(p, n_layer=12)[1], p[1]),
        0,
        "parts of different models: .*(both have the tensor|tensors together, where)",
    ),
    "of a smaller model": (
        lambda p: shutil.copy(other(p, n_layer=3)[2], p[2]),
        0,
        "parts of different models: .*(both have the tensor|tensors together, where)",
    ),
    "the first renamed": (
        lambda p: p[0].rename(p[0].with_name("model.gguf")),
        -1,
        r"part 1 of 3; the others are found by its name, which must end in -00001-of-00003\.gguf",
    ),
    "a later one renamed": (
        lambda p: p[1].rename(p[1].with_name("model.gguf")),
        -1,
        "is part 2 of 3, and the file whose name ends in -00001-of-00003.gguf, the part",
    ),
    "named after another count": (
        lambda p: [path.rename(path.with_name(path.name.replace("of-00003", "of-00004"))) for path in p],
        -2,
        "which must end in -00001-of-00003.gguf",
    ),
}


@pytest.mark.parametrize("how", WRONG)
def test_the_part_that_is_needed_is_named(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    change, given, says = WRONG[how]
    change(parts)
    names = {-1: parts[0].with_name("model.gguf"), -2: parts[0].with_name("big-Q8_0-00001-of-00004.gguf")}
    import re

    assert re.search(says, refusal(names.get(given, parts[given]))), refusal(names.get(given, parts[given]))


@pytest.mark.parametrize(
    "values", [{"split.no": "x"}, {"split.count": "x"}, {"split.no": 1}, {"split.no": 1, "split.count": 1}]
)
def test_a_header_is_checked_though_it_says_that_it_is_a_part(tmp_path: Path, values: dict[str, object]) -> None:
    """Only the later parts lack what is checked, and llama.cpp never begins with one."""
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_block_count(1 << 31)
    for key, value in values.items():
        writer.add_string(key, value) if isinstance(value, str) else writer.add_uint16(key, value)  # type: ignore[arg-type]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert "block_count cannot be" in refusal(tmp_path / "x.gguf")


# ---- copies ---------------------------------------------------------------------------------------------------------


def test_a_copy_is_one_file(parts: list[Path], tmp_path: Path) -> None:
    header = opened(parts[0])
    requantize.write(header, [], tmp_path / "copy.gguf")
    copy = opened(tmp_path / "copy.gguf")
    assert [t.name for t in copy.tensors] == [t.name for t in header.tensors]
    assert not any(key.startswith("split.") for key in copy.values) and copy.files == (tmp_path / "copy.gguf",)


@pytest.mark.parametrize(
    ("file", "n", "name"),
    [
        ("x-00002-of-00003.gguf", 3, "x"),
        ("x-00001-of-00001.gguf", 1, "x"),
        ("x-00000-of-00000.gguf", 1, "x"),
        ("x-00004-of-00003.gguf", 1, "x"),
        ("x.Q4_0.gguf", 1, "x.Q4_0"),
        ("x-1-of-3.gguf", 3, "x"),
        ("x_00002_OF_00003.GGUF", 3, "x"),
        ("x.1of3.gguf", 3, "x"),
        ("1-of-3.gguf", 1, "1-of-3"),
    ],
)
def test_names_of_parts(file: str, n: int, name: str) -> None:
    assert len(source.parts(file)) == n and source.name_of(file) == name
