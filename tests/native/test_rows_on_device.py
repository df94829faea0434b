"""Layers on another device: what crosses between it and the host, and that rows are what they are on the CPU.

The numbers hold for every device but the last digits of bytes: nobody needs a GPU to see that more crosses than before.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import GPU_LAYERS
from rows_on_worker import EXITS
from test_probe import N_SHORT

from specee.native import library

pytestmark = [
    pytest.mark.skipif(bool(GPU_LAYERS), reason="these choose their own device"),
    pytest.mark.skipif(sys.platform == "win32", reason="the worker's libraries have other names"),
]

FLOAT = 4
TOLERANCE = 0.05  # of logits: other kernels

ALL, SOME = 99, 3  # of 6 layers; with the LM head, or not


@pytest.fixture(scope="module", params=[ALL, SOME], ids=["all layers", "three of six"])
def layers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def found(layers: int, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    assert (library.directory() / library.library_name().replace("llama", "ggml-rpc")).exists()
    script, folder = Path(__file__).with_name("rows_on_worker.py"), tmp_path_factory.mktemp("worker")
    done = subprocess.run([sys.executable, script, folder, str(layers)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


def to_host(found: dict[str, Any], what: str) -> tuple[int, int, int]:
    """Times that the host waits; what it gets, and how many numbers."""
    crossed = found["worker"][what]
    return crossed["n_waits"], crossed["n_to_host"], crossed["bytes_to_host"] // FLOAT


def test_on_a_cpu_nothing_crosses(found: dict[str, Any]) -> None:
    crossed = [numbers for numbers in found["cpu"].values() if isinstance(numbers, dict)]
    assert len(crossed) > 4 and not any(n for numbers in crossed for n in numbers.values())


def test_what_the_host_gets_and_when_it_waits(found: dict[str, Any], layers: int) -> None:
    """One wait for each range that ends on the device: for logits, the estimate of a row that is probed, or nothing."""
    n_embd, n_vocab = found["worker"]["n_embd"], found["worker"]["n_vocab"]
    if layers == ALL:
        assert to_host(found, "dense") == (1, 1, n_vocab)
        assert to_host(found, "four rows") == (1, 1, 4 * n_vocab)
        assert to_host(found, "three ranges") == (3, 1, 4 * n_vocab)
        assert to_host(found, "three probes") == (1 + 3, 1 + 3, n_vocab + 3 * n_embd)
        assert to_host(found, "three margins") == (1 + 3, 1 + 3, n_vocab + 3 * N_SHORT)
        # the LM head through the lens, then the deferred layers
        assert to_host(found, "exit at the first") == (1 + 1 + 1, 1 + 2, n_embd + 2 * n_vocab)
        # the states that the head reads come with the logits; it drafts from its own, one wait each
        assert to_host(found, "dense with a head") == (1, 1 + 3, n_vocab + 3 * n_embd)
        assert to_host(found, "a head reads") == (2, 3, n_vocab + 2 * n_embd)
        assert to_host(found, "a head reads and drafts") == (3, 5, 2 * n_vocab + 3 * n_embd)
    else:  # the CPU goes on with the states at the border, and has the logits
        assert to_host(found, "dense") == (1, 1, n_embd)
        assert to_host(found, "four rows") == (1, 1, 4 * n_embd)
        assert to_host(found, "three ranges") == (3, 1, 4 * n_embd)
        assert to_host(found, "three probes") == (1 + 2, 1 + 2, 3 * n_embd)


def test_what_the_device_gets(found: dict[str, Any], layers: int) -> None:
    """No state: only where one is, and what every computation needs (embeddings, positions, places of K and V, mask)."""
    n_embd = found["worker"]["n_embd"]
    logits = 1 if layers == ALL else 0  # which rows have them
    first = 5 + logits
    dense, four, ranges = (found["worker"][what] for what in ("dense", "four rows", "three ranges"))
    assert dense["n_to_device"] == four["n_to_device"] == first + (1 if layers == ALL else 0)
    assert four["bytes_to_device"] == 4 * dense["bytes_to_device"], "the mask goes there once, not for each layer"
    n_ranges = 3  # two with states to read there, and two or three with states to leave there
    assert ranges["n_to_device"] == first + 4 * (n_ranges - 1) + (5 if layers == ALL else 4)
    without_embeddings = 4 * (dense["bytes_to_device"] - n_embd * FLOAT)
    assert ranges["bytes_to_device"] <= n_ranges * without_embeddings + 4 * n_embd * FLOAT + 5 * 4 * FLOAT


@pytest.mark.parametrize("what", ["logits", "states", "after a cancel", "scores"])
def test_rows_in_ranges_are_equal(found: dict[str, Any], what: str) -> None:
    """Bit for bit: logits of rows that stop everywhere; states of one that stopped before, or was cancelled on the way;
    scores of probes on the way, and of rows that are advanced, then probed."""
    assert found["worker"]["no_exits"] is None
    assert found["worker"][f"equal {what}"] is True


def test_exits_are_those_of_the_cpu(found: dict[str, Any]) -> None:
    """Lens, probe and LM head on the device, within its rounding."""
    ours, theirs = found["worker"], found["cpu"]
    assert np.allclose(ours["scores"], theirs["scores"], atol=TOLERANCE)
    for mine, other in zip(ours["exit logits"], theirs["exit logits"], strict=True):
        assert np.abs(np.subtract(mine, other)).max() < TOLERANCE * np.ptp(other)
    assert len(ours["scores"]) == len(EXITS)
