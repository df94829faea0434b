"""A wheel, built and used as a user would: right files, and an answer in a fresh environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("SPECEE_SKIP_SLOW" in os.environ, reason="SPECEE_SKIP_SLOW is set"),
]


def _run(*command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPECEE_")}
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, env={**clean, **env})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in the build folder that the install filled, so that this takes seconds."""
    out = tmp_path_factory.mktemp("wheel")
    done = _run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", out, ROOT)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (built,) = out.iterdir()
    return built


def test_files(wheel: Path) -> None:
    assert re.fullmatch(r"specee_chat-[\d.]+-py3-none-\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    for wanted in ("app/cli/main.py", "predictors/types.py", "models/registry.toml", "native/lib/build.json"):
        assert f"specee/{wanted}" in names
    assert "specee/models/data/smollm2-135m.gguf" in names
    if (ROOT / "predictors/data/smollm2-135m.specee.gguf").exists():
        assert "specee/models/data/smollm2-135m.specee.gguf" in names
    assert all(name.startswith("specee/") for name in names)
    assert "specee/__init__.py" not in names  # one name space, several folders
    unwanted = re.compile(r"\.(cpp|h|cu|patch|cmake|md|pc|pyc)$|/(src|fuzz|cmake|patches|bindings)/")
    assert [name for name in names if unwanted.search(name)] == []
    assert [name for name in names if "benchmark" in name or "/test" in name] == [], "measuring is not for users"
    libraries = [name for name in names if re.search(r"\.(so|dylib|dll)", name)]
    assert len(libraries) == len({re.sub(r"\..*", "", name) for name in libraries}), "a library is there twice"


def test_answers_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    done = _run(python, "-m", "pip", "install", ROOT / "native/bindings", wheel)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    data = tmp_path / "data"
    asked = ["-p", "Why is the sky blue?", "--json", "--max-tokens", "8", "--policy", "dense", "--data-dir", data]
    answer = _run(tmp_path / "venv/bin/specee-chat", *asked, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["tokens"]


def test_no_compiler_is_one_clear_line(tmp_path: Path) -> None:
    settings = f"--config-settings=build-dir={tmp_path / 'build'}"
    done = _run(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, settings, ROOT, CXX="/no/compiler"
    )
    assert done.returncode != 0
    assert "specee-chat needs a C++17 compiler and found none: install g++ or clang" in done.stdout + done.stderr
