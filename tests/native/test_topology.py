"""Which cores are chosen for threads, from trees of files as /sys has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from specee.native import topology

GIB = 1 << 30


def tree(
    folder: Path,
    siblings: list[str],
    *,
    capacity: list[int] | None = None,
    clock: list[int] | None = None,
    files: dict[str, str] | None = None,
) -> Path:
    """A machine: the processors that share a core with each one, and how fast each is."""
    wanted = {f"cpu/cpu{p}/topology/thread_siblings_list": text for p, text in enumerate(siblings)}
    wanted |= {f"cpu/cpu{p}/cpu_capacity": str(n) for p, n in enumerate(capacity or [])}
    wanted |= {f"cpu/cpu{p}/cpufreq/cpuinfo_max_freq": str(n) for p, n in enumerate(clock or [])}
    for name, text in (wanted | (files or {})).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    return folder


def choose(system: Path, n: int, limit: int | None = None, model_bytes: int = 0) -> topology.Choice:
    found = topology.choose(limit or n, model_bytes, frozenset(range(n)), system)
    assert found is not None
    return found


def nodes(*lists: str, free: int) -> dict[str, str]:
    texts = {f"node/node{i}/cpulist": text for i, text in enumerate(lists)}
    memory = "Node {0} MemTotal: 99999999 kB\nNode {0} MemFree: {1} kB\nNode {0} FilePages: 0 kB"
    return texts | {f"node/node{i}/meminfo": memory.format(i, free >> 10) for i in range(len(lists))}


def test_one_thread_a_core(tmp_path: Path) -> None:
    system = tree(tmp_path, ["0,4", "1,5", "2,6", "3,7"] * 2)
    assert choose(system, 8) == topology.Choice(4, "")
    assert topology.describe(topology.cores(frozenset(range(8)), system)) == "4 cores, 8 hardware threads"


def test_an_affinity_that_splits_cores(tmp_path: Path) -> None:
    system = tree(tmp_path, ["0,4", "1,5", "2,6", "3,7"] * 2)
    for usable, threads in (({0, 4}, 1), ({0, 5}, 2), ({1, 2, 5}, 2), ({7}, 1)):
        found = topology.choose(8, 0, frozenset(usable), system)
        assert found is not None and found.threads == threads


INTEL = ["0-1", "0-1", "2-3", "2-3", "4", "5", "6", "7"]


def test_performance_cores_of_an_intel_hybrid(tmp_path: Path) -> None:
    system = tree(tmp_path, INTEL, files={"cpu_core/cpus": "0-3", "cpu_atom/cpus": "4-7"})
    assert choose(system, 8) == topology.Choice(2, "the fast ones of 6 cores")
    found = topology.cores(frozenset(range(8)), system)
    assert topology.describe(found) == "6 cores, 8 hardware threads, 2 fast and 4 slow"
    only_slow = topology.choose(8, 0, frozenset({4, 5, 6}), system)
    assert only_slow == topology.Choice(3, "")


@pytest.mark.parametrize(
    ("speeds", "threads"),
    [
        ({"capacity": [280, 280, 280, 280, 870, 870, 870, 1024]}, 4),
        ({"clock": [5100, 5100, 3500, 3500, 3500, 3500, 3500, 3500]}, 2),
        ({"clock": [5700, 5700, 5550, 5550, 5400, 5400, 5250, 5250]}, 8),  # favoured cores of one kind
        ({"clock": [5700, 5700]}, 8),  # not known of all
    ],
)
def test_fast_cores_by_capacity_or_clock(tmp_path: Path, speeds: dict[str, list[int]], threads: int) -> None:
    system = tree(tmp_path, [str(p) for p in range(8)], **speeds)  # type: ignore[arg-type]
    assert choose(system, 8).threads == threads


def test_one_memory_node_where_the_model_fits(tmp_path: Path) -> None:
    system = tree(tmp_path, [str(p) for p in range(8)], files=nodes("0-2", "3-7", free=4 * GIB))
    assert choose(system, 8, model_bytes=3 * GIB) == topology.Choice(5, "those of memory node 1")
    large = choose(system, 8, model_bytes=5 * GIB)
    assert large.threads == 8 and "fits into none" in large.reason


def test_a_quota_limits_threads(tmp_path: Path) -> None:
    system = tree(tmp_path, [str(p) for p in range(8)])
    assert choose(system, 8, limit=3).threads == 3


@pytest.mark.parametrize("texts", [[], ["0", "", "2"], ["0", "x", "2"], ["0", "1-", "2"]])
def test_a_system_that_does_not_tell(tmp_path: Path, texts: list[str]) -> None:
    assert topology.choose(3, 0, frozenset(range(3)), tree(tmp_path, texts)) is None
