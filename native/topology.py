"""The cores of this machine, from what the system tells: which are fast, which share a core, which memory is near.

Linux says it in /sys; the functions take its place, so that tests can make one up. Where the system does not say
something, cores count as equal.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from specee.native.control_groups import lines

SYSTEM = Path("/sys/devices")
# Of the fastest core's speed: with less it is a slow one. Cores of one kind differ a little in their highest clock.
FAST = 0.8


@dataclass(frozen=True)
class Core:
    """A physical core."""

    processors: frozenset[int]  # logical ones, of those that this process may use
    fast: bool
    node: int  # of memory


@dataclass(frozen=True)
class Choice:
    """The threads to compute with, and why not one on each core."""

    threads: int
    reason: str


def allowed() -> frozenset[int]:
    """The logical processors of this process's affinity."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cores(usable: frozenset[int] | None = None, system: Path = SYSTEM) -> list[Core]:
    """The physical cores with a processor of `usable`; [] where the system does not tell which processors share one."""
    usable = allowed() if usable is None else usable
    siblings = {p: _siblings(system / f"cpu/cpu{p}/topology") for p in usable}
    if not all(siblings.values()):
        return []
    speeds = _speeds(usable, system)
    fastest = max(speeds.values())
    nodes = {p: node for node, there in _nodes(system).items() for p in there}
    found = {frozenset(siblings[p] & usable): p for p in sorted(usable, reverse=True)}
    made = [Core(shared, speeds[p] >= FAST * fastest, nodes.get(p, 0)) for shared, p in found.items()]
    return sorted(made, key=lambda core: min(core.processors))


def choose(
    limit: int, model_bytes: int = 0, usable: frozenset[int] | None = None, system: Path = SYSTEM
) -> Choice | None:
    """Threads for decoding, `limit` at most; None where the system does not tell.

    One a core: two threads of a core wait for the same memory. Fast cores only, because each product waits for the
    slowest; of one memory node, where the model fits there.
    """
    found = cores(usable, system)
    if not found:
        return None
    fast = [core for core in found if core.fast]
    reasons = []
    if len(fast) < len(found):
        reasons.append(f"the fast ones of {len(found)} cores")
    by_node = defaultdict(list)
    for core in fast:
        by_node[core.node].append(core)
    if len(by_node) > 1:
        fitting = [node for node in by_node if model_bytes <= _node_bytes(node, system)]
        if fitting:
            node = max(fitting, key=lambda node: (len(by_node[node]), -node))
            fast = by_node[node]
            reasons.append(f"those of memory node {node}")
        else:
            reasons.append(f"of {len(by_node)} memory nodes: the model fits into none of them alone")
    return Choice(max(1, min(limit, len(fast))), ", ".join(reasons))


def describe(found: list[Core]) -> str:
    """What was found, in words."""
    processors = sum(len(core.processors) for core in found)
    fast, nodes = sum(core.fast for core in found), len({core.node for core in found})
    parts = [f"{len(found)} cores"]
    if processors > len(found):
        parts.append(f"{processors} hardware threads")
    if fast < len(found):
        parts.append(f"{fast} fast and {len(found) - fast} slow")
    if nodes > 1:
        parts.append(f"{nodes} memory nodes")
    return ", ".join(parts)


def fast_cores_of_macos() -> int:
    """Cores of the fastest kind; 0 elsewhere, or when unknown. Written from Apple's documents, never run there."""
    if platform.system() != "Darwin":
        return 0
    for name in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):
        try:
            done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5)
        except (OSError, subprocess.SubprocessError):
            return 0
        if done.returncode == 0 and done.stdout.strip().isdigit():
            return int(done.stdout)
    return 0


def _list(text: str) -> frozenset[int]:
    """`0-3,8` as the kernel writes it; nothing of what cannot be read."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if match := re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part.strip()):
            found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(found)


def _text(path: Path) -> str:
    return "".join(lines(path)[:1])


def _siblings(topology: Path) -> frozenset[int]:
    return _list(_text(topology / "core_cpus_list") or _text(topology / "thread_siblings_list"))


def _speeds(usable: frozenset[int], system: Path) -> dict[int, float]:
    """Of each processor, in the first unit that the system has for all of them."""
    small = _list(_text(system / "cpu_atom/cpus"))  # Intel hybrids list both kinds
    if small and _list(_text(system / "cpu_core/cpus")):
        return {p: 0.5 if p in small else 1.0 for p in usable}
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        texts = {p: _text(system / f"cpu/cpu{p}" / name).strip() for p in usable}
        if all(text.isdigit() for text in texts.values()):
            return {p: float(text) for p, text in texts.items()}
    return dict.fromkeys(usable, 1.0)


def _nodes(system: Path) -> dict[int, frozenset[int]]:
    """The processors of each memory node that has some."""
    found = {}
    for folder in system.glob("node/node*"):
        if folder.name[4:].isdigit() and (there := _list(_text(folder / "cpulist"))):
            found[int(folder.name[4:])] = there
    return found


def _node_bytes(node: int, system: Path) -> int:
    """Memory of the node that is free, or holds pages of files."""
    wanted = ("MemFree", "FilePages")
    texts = [line.replace(":", " ").split() for line in lines(system / f"node/node{node}/meminfo")]
    return sum(int(t[3]) << 10 for t in texts if len(t) > 3 and t[2] in wanted and t[3].isdigit())
