"""The control groups of this process, which may limit its cores and its memory (Linux, containers)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

OWN = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def folders(controller: str, own: Path = OWN, root: Path = ROOT) -> Iterator[tuple[Path, int]]:
    """The folder of each group that has this controller, the outer ones too, with its version (1 or 2)."""
    for line in lines(own):
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        # in a container the name may be the host's: then only the root is there
        parts = tuple(part for part in name.split("/") if part)
        for n in range(len(parts) + 1):
            yield top.joinpath(*parts[:n]), 1 if controllers else 2


def lines(path: Path) -> list[str]:
    """Of a file; none of one that is not there."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
