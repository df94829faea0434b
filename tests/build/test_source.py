"""The pinned source: patches apply, twice too, and what goes wrong is one clear line."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATCHES = sorted((ROOT / "native/patches").glob("*.patch"))
PATCHED = sorted({n for p in PATCHES for n in re.findall(r"^\+\+\+ b/(\S+)", p.read_text(), re.MULTILINE)})


def _load_fetch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch", ROOT / "native/cmake/fetch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fetch = _load_fetch()


def _pins() -> dict[str, str]:
    text = (ROOT / "native/cmake/pin.cmake").read_text()
    return dict(re.findall(r"^set\((\w+) (\S+)\)", text, re.MULTILINE))


PIN = _pins()["SPECEE_PIN"]


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source; the archive is the build's, or downloaded when the build was elsewhere."""
    source = tmp_path_factory.mktemp("pristine")
    fetch.unpack(fetch.archive(PIN, _pins()["SPECEE_PIN_SHA256"], ROOT / "build/downloads"), source)
    return source


@pytest.fixture
def source(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the files that we patch, inside of a git repository as the build folder is."""
    if git := shutil.which("git"):
        subprocess.run([git, "init", "--quiet", str(tmp_path)], check=True)
    copy = tmp_path / "build/llama.cpp"
    for name in PATCHED:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if (pristine / name).exists():  # else a patch makes it
            shutil.copyfile(pristine / name, copy / name)
    return copy


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _without(monkeypatch: pytest.MonkeyPatch, *tools: str) -> None:
    which = shutil.which
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None if name in tools else which(name))


@pytest.mark.parametrize("missing", ["patch", "git"])
def test_patches_apply_twice(source: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, missing)
    if shutil.which("git" if missing == "patch" else "patch") is None:
        pytest.skip("the other tool is not on this machine either")
    before = _content(source)
    assert fetch.apply_patches(source, PATCHES, PIN) == [patch.name for patch in PATCHES]
    patched = _content(source)
    assert sorted(name for name in patched if patched[name] != before.get(name)) == PATCHED

    assert fetch.apply_patches(source, PATCHES, PIN) == []
    assert _content(source) == patched


@pytest.mark.parametrize("missing", ["patch", "git"])
def test_another_source_fails_with_the_pin(source: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, missing)
    target = re.findall(r"^\+\+\+ b/(\S+)", PATCHES[0].read_text(), re.MULTILINE)[0]
    (source / target).write_text("// another version\n")
    with pytest.raises(fetch.FetchError, match=rf"{PATCHES[0].name} does not apply to llama.cpp of {PIN}"):
        fetch.apply_patches(source, PATCHES, PIN)


def test_no_patch_tool(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "git", "patch")
    with pytest.raises(fetch.FetchError, match="neither git nor patch"):
        fetch.apply_patches(source, PATCHES, PIN)


def test_every_patch_explains_itself() -> None:
    for patch in PATCHES:
        head = patch.read_text().split("diff --git")[0]
        for word in ("Why:", "Upstream:", "Delete when:"):
            assert word in head, f"{patch.name} has no '{word}'"


def test_only_changes_are_written(tmp_path: Path) -> None:
    fresh, out = tmp_path / "fresh", tmp_path / "out"
    for folder in (fresh, out):
        folder.mkdir()
        (folder / "same").write_text("same")
    (fresh / "changed").write_text("new")
    (out / "changed").write_text("old")
    (out / "gone").write_text("gone")
    stamp = (out / "same").stat().st_mtime_ns
    fetch.synchronise(fresh, out)
    assert _content(out) == {"same": b"same", "changed": b"new"}
    assert (out / "same").stat().st_mtime_ns == stamp


def _source_arguments(tmp_path: Path) -> list[str]:
    folders = ["--downloads", str(tmp_path / "d"), "--patches", str(tmp_path / "p"), "--out", str(tmp_path / "o")]
    return ["source", "--pin", PIN, "--sha256", "0" * 64, *folders]


def test_broken_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def download(pin: str, downloads: Path, **_: Any) -> Path:
        downloads.mkdir()
        (downloads / "archive.tar.gz").write_bytes(b"half")
        return downloads / "archive.tar.gz"

    monkeypatch.setattr(fetch, "pip_download", download)
    assert fetch.main(_source_arguments(tmp_path)) == 1
    error = capsys.readouterr().err
    assert PIN in error and "the download is broken" in error and error.count("\n") == 1


def test_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 30, 1 << 30, 0))
    assert fetch.main(_source_arguments(tmp_path)) == 1
    error = capsys.readouterr().err
    assert "not enough disk space" in error and error.count("\n") == 1


def test_not_a_llama_cpp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert fetch.main([*_source_arguments(tmp_path), "--from", str(tmp_path / "elsewhere")]) == 1
    assert "is not an unpacked llama.cpp" in capsys.readouterr().err


def test_the_pin_is_the_same_everywhere() -> None:
    assert re.findall(r"llama-cpp-python==[\w.]+", (ROOT / "pyproject.toml").read_text()) == [PIN]
    assert re.findall(r"^llama-cpp-python==[\w.]+", (ROOT / "requirements-lock.txt").read_text(), re.M) == [PIN]
