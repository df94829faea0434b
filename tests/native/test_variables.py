"""Environment variables of the library: a value that means nothing is an error, not another speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from specee.native import library
from specee.native.errors import NativeError


@pytest.mark.parametrize("value", ["bogus", "", "AVX2", "avx2 "])
def test_kernels_that_do_not_exist_are_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SPECEE_KERNELS", value)
    with pytest.raises(NativeError, match=r"SPECEE_KERNELS: .* is not one of avx2"):
        library.check_variables()


def test_those_in_the_source_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(library.__file__).resolve().parent / "src" / "small_batch" / "small_batch.cpp"
    if not source.is_file():
        pytest.skip("installed without the source")
    for name in set(library.KERNELS) - {"none"}:
        assert f'is_wanted("{name}")' in source.read_text()
        monkeypatch.setenv("SPECEE_KERNELS", name)
        library.check_variables()


def test_a_folder_without_the_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPECEE_LIB_DIR", str(tmp_path))
    with pytest.raises(NativeError, match=rf"in {tmp_path}; correct SPECEE_LIB_DIR"):
        library.directory()


def test_a_back_end_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    handle = library.load()
    monkeypatch.setenv("SPECEE_BACKEND", str(tmp_path / "none.so"))
    with pytest.raises(NativeError, match="is no back end for this library"):
        library._load_backend(handle)
