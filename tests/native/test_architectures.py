"""Every architecture of the pinned llama.cpp, as a tiny random model: what it can do here, and whether that is true.

The table in native/README.md is made of it (`SPECEE_REWRITE_ARCHITECTURES=1`), and compared. SPECEE_TEST_STOCK names a
Python with an unpatched llama-cpp-python of the pinned version, whose bits are compared too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arch_checks
import arch_headers
import pytest
from ggml_programs import ggml_source
from helpers import GPU_LAYERS

from specee.models import architectures, gguf_header
from specee.models.errors import NotAChatModelError
from specee.native import abi

HERE = Path(__file__).parent
README = HERE.parents[1] / "native/README.md"
BEGIN, END = "<!-- made by tests/native/test_architectures.py -->\n", "<!-- end -->\n"
REWRITE = os.environ.get("SPECEE_REWRITE_ARCHITECTURES") == "1"
STOCK = os.environ.get("SPECEE_TEST_STOCK")
OURS = ("PYTHONPATH", "PYTHONHOME", "LLAMA_CPP_LIB_PATH")  # variables that would lead the unpatched one to our library
N_PROCESSES = 2
NO_CHAT = sorted({*arch_headers.NO_CHAT, *arch_headers.NO_CHAT_WITH_EXPERTS})
CHAT = [name for name in arch_headers.names() if name not in NO_CHAT]

pytestmark = pytest.mark.skipif(bool(GPU_LAYERS), reason="the table is that of a CPU")


def run_batches(program: list[str], items: Sequence[str], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """What a program says of each item: its name, and a line after it. One that ends at an item is started again after
    it."""
    found: dict[str, Any] = {}

    def run(share: list[str]) -> None:
        while share:
            done = subprocess.run([*program, *share], capture_output=True, text=True, errors="replace", env=environment)
            lines = done.stdout.splitlines()
            found.update(zip(lines[::2], map(json.loads, lines[1::2]), strict=False))
            if done.returncode == 0:
                return
            at = share.index(lines[-1]) if len(lines) % 2 else len(share) - 1
            found[share[at]] = {"died": f"{done.returncode}: {done.stderr[-300:]}"}
            share = share[at + 1 :]

    with ThreadPoolExecutor(N_PROCESSES) as pool:
        list(pool.map(run, [list(items[i::N_PROCESSES]) for i in range(N_PROCESSES)]))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models."""
    folder = tmp_path_factory.mktemp("architectures")
    made = run_batches([sys.executable, str(HERE / "tiny_archs.py"), str(folder)], arch_headers.names())
    assert {name: said for name, said in made.items() if said is not True} == {}
    return folder


def files(folder: Path) -> list[str]:
    return [str(folder / f"{name}.gguf") for name in CHAT]


@pytest.fixture(scope="module")
def checked(folder: Path) -> dict[str, Any]:
    """By name, what `arch_checks` found."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    program = [sys.executable, str(HERE / "arch_checks.py")]
    found = run_batches(program, files(folder), {**os.environ, "PYTHONPATH": paths})
    return {Path(path).stem: result for path, result in found.items()}


@pytest.fixture(scope="module")
def unpatched(folder: Path) -> dict[str, Any]:
    """By name, the answers of an unpatched llama.cpp."""
    if STOCK is None:
        pytest.skip("SPECEE_TEST_STOCK names no Python with an unpatched llama-cpp-python")
    prompt = ",".join(map(str, arch_checks.prompt_of(1)))
    program = [STOCK, str(HERE / "stock_answers.py"), prompt, str(arch_checks.N_ANSWER)]
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    return {Path(path).stem: result for path, result in run_batches(program, files(folder), environment).items()}


def test_none_is_forgotten() -> None:
    made = {arch_headers.header(name)[0] for name in arch_headers.names()}
    assert made | set(arch_headers.NOT_MADE) == architectures.KNOWN


def test_what_we_know_is_what_the_pinned_llama_cpp_knows() -> None:
    """One that is missing here would be refused though it runs."""
    ggml = ggml_source()
    if ggml is None:
        pytest.skip("no unpacked llama.cpp in build/ and none in SPECEE_LLAMA_SOURCE")
    source = (ggml.parent / "src/llama-arch.cpp").read_text("utf-8")
    names = re.search(r"LLM_ARCH_NAMES = \{(.*?)\n\};", source, re.DOTALL)
    assert names is not None
    named = set(re.findall(r'LLM_ARCH_\w+,\s*"([^"]+)"', names[1])) - {"(unknown)"}
    assert named == architectures.KNOWN
    assert set(architectures.HEADS) <= named


@pytest.mark.parametrize("name", NO_CHAT)
def test_no_chat_model_is_told_by_its_kind(folder: Path, name: str) -> None:
    with pytest.raises(NotAChatModelError):
        gguf_header.read_model(folder / f"{name}.gguf")


@pytest.mark.parametrize("name", CHAT)
def test_what_is_proven_is_true(folder: Path, checked: dict[str, Any], name: str) -> None:
    gguf_header.read_model(folder / f"{name}.gguf")
    assert checked[name].get("wrong") == [], checked[name]
    arch, found = arch_headers.header(name)[0], checked[name]
    assert found["recurrent"] is (arch in architectures.RECURRENT)
    assert found["hybrid"] is (arch in architectures.HYBRID)
    assert len(set(found["tokens"])) > 1, "an answer of one token tells little"


@pytest.mark.parametrize("name", CHAT)
def test_dense_is_an_unpatched_llama_cpp(checked: dict[str, Any], unpatched: dict[str, Any], name: str) -> None:
    ours, theirs = checked[name], unpatched[name]
    assert (ours.get("tokens"), ours.get("digests")) == (theirs.get("tokens"), theirs.get("digests")), theirs


# ---- the table


@dataclass(frozen=True, order=True)
class Verdict:
    """Of an architecture: how much it lacks, and why."""

    lacks: int
    limit: str


def table(checked: dict[str, Any]) -> str:
    """The part of native/README.md between the two marks."""
    groups: dict[Verdict, list[str]] = {}
    of_both: dict[str, dict[str, Verdict]] = {}
    for name in CHAT:
        verdict = Verdict(abi.EXITS - checked[name]["level"], checked[name]["limit"])
        of_both.setdefault(arch_headers.header(name)[0], {})[name] = verdict
    for arch, forms in of_both.items():
        for name, verdict in forms.items():
            same = len(set(forms.values())) == 1
            told = arch if same else f"{arch} {'with' if name != arch else 'without'} experts"
            if told not in groups.setdefault(verdict, []):
                groups[verdict].append(told)
    n = {level: sum(len(a) for v, a in groups.items() if abi.EXITS - v.lacks >= level) for level in abi.LEVELS}
    lines = [
        f"Of {n[abi.DENSE]} architectures that chat, {n[abi.EXITS]} have exits, {n[abi.DRAFTS]} have drafts, and "
        f"{n[abi.DENSE] - n[abi.DRAFTS]} decode densely.",
        "",
        "| Exits | Drafts | Why not | Architectures |",
        "|---|---|---|---|",
    ]
    for verdict, members in sorted(groups.items()):
        level = abi.EXITS - verdict.lacks
        exits, drafts = ("yes" if level >= needed else "no" for needed in (abi.EXITS, abi.DRAFTS))
        lines.append(f"| {exits} | {drafts} | {verdict.limit} | {', '.join(sorted(members))} |")
    return "\n".join(lines) + "\n"


def test_the_readme_says_so(checked: dict[str, Any]) -> None:
    before, rest = README.read_text("utf-8").split(BEGIN)
    old, after = rest.split(END)
    new = table(checked)
    if REWRITE:
        README.write_text(f"{before}{BEGIN}{new}{END}{after}", "utf-8")
    else:
        assert old == new, "SPECEE_REWRITE_ARCHITECTURES=1 writes it anew"
