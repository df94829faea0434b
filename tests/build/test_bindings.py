"""llama-cpp-python's bindings: what we install, and that pip's cache never has it to give to others."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from specee.native import library

ROOT = Path(__file__).parents[2]
BINDINGS = ROOT / "native/bindings"
PIN = re.findall(r"^set\(SPECEE_PIN (\S+)\)", (ROOT / "native/cmake/pin.cmake").read_text(), re.MULTILINE)[0]
BUILD = "import bindings_backend as b, sys; print(b.prepare_metadata_for_build_wheel(sys.argv[1]), b.build_wheel('.'))"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(folder with the metadata that pip asks for first, the wheel)"""
    out = tmp_path_factory.mktemp("bindings")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, out], cwd=out, env={**os.environ, "PYTHONPATH": str(BINDINGS)},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    info, wheel = done.stdout.splitlines()[-1].split()
    return out / info, out / wheel


def test_the_wheel_is_whole(built: tuple[Path, Path]) -> None:
    info, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        record = list(csv.reader(io.StringIO(archive.read(f"{info.name}/RECORD").decode())))
        assert sorted(row[0] for row in record) == sorted(archive.namelist())
        for name, digest, size in record[:-1]:
            content = archive.read(name)
            assert len(content) == int(size)
            assert "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=") == digest
        for path in info.rglob("*.*"):
            assert archive.read(f"{info.name}/{path.relative_to(info)}") == path.read_bytes()
        names = archive.namelist()
    assert {"llama_cpp/llama_cpp.py", "llama_cpp/server/app.py", f"{info.name}/licenses/LICENSE.md"} <= set(names)
    assert [n for n in names if not n.startswith(f"{info.name}/") and not n.endswith((".py", ".typed"))] == []


def test_it_is_what_we_depend_on(built: tuple[Path, Path]) -> None:
    metadata = Parser().parsestr((built[0] / "METADATA").read_text())
    (wanted,) = (
        wanted
        for wanted in map(Requirement, importlib.metadata.requires("specee-chat") or ())
        if wanted.name == "llama-cpp-python"
    )
    assert wanted.specifier.contains(metadata["Version"])
    assert metadata["Version"].endswith("+specee")  # never mistaken for the one of the index
    assert any(needed.startswith("diskcache") for needed in metadata.get_all("Requires-Dist"))


def test_they_use_our_library() -> None:
    library.load()
    bindings = importlib.import_module("llama_cpp.llama_cpp")
    assert Path(bindings._base_path) == library.directory()


@pytest.mark.slow
@pytest.mark.skipif("SPECEE_SKIP_SLOW" in os.environ, reason="SPECEE_SKIP_SLOW is set")
@pytest.mark.parametrize("pip", ["pip==22.0.2", "pip"])
def test_pip_keeps_no_wheel_of_ours(pip: str, tmp_path: Path) -> None:
    """What pip keeps under llama-cpp-python's name, it gives to other environments of the user, where no library is."""
    for name in ("bindings", "cmake"):  # as in a fresh clone: nothing is downloaded yet
        shutil.copytree(ROOT / "native" / name, tmp_path / "native" / name)
    venv.create(tmp_path / "venv", with_pip=True)
    cache = tmp_path / "cache"
    env = {name: value for name, value in os.environ.items() if name != "PIP_NO_CACHE_DIR"}
    env["PIP_CACHE_DIR"] = str(cache)
    printed = []
    for wanted in (["--upgrade", pip], ["--no-deps", "./native/bindings"], ["--no-deps", PIN]):
        command = [str(part) for part in (tmp_path / "venv/bin/python", "-m", "pip", "install", *wanted)]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        printed.append(done.stdout)
    assert re.search(r"Stored in directory: \S*/pip-ephem-wheel-cache-", printed[1])  # else it says a folder in `cache`
    assert f"Requirement already satisfied: {PIN}" in printed[2]
    assert [path.name for path in cache.rglob("*.whl")] == []
