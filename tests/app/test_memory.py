"""Memory that is free, as systems say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from specee.app import memory

MB = 1 << 20
NOTHING = Path("/nowhere")


def system(folder: Path, available: int) -> Path:
    (folder / "meminfo").write_text(f"MemTotal:  99 kB\nMemAvailable:   {available // 1024} kB\n")
    return folder / "meminfo"


def groups(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    (folder / "own").write_text(own)
    for name, text in files.items():
        (folder / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / name).write_text(text)
    return folder / "own", folder / "groups"


@pytest.mark.parametrize(
    ("own", "files", "free"),
    [
        ("0::/\n", {}, 900),
        ("0::/a/b\n", {"a/memory.max": f"{500 * MB}\n", "a/memory.current": f"{100 * MB}\n"}, 400),
        ("0::/a/b\n", {"a/memory.max": "max\n", "a/memory.current": f"{100 * MB}\n"}, 900),
        (
            "0::/a\n",
            {
                "a/memory.max": f"{500 * MB}",
                "a/memory.current": f"{400 * MB}",
                "a/memory.stat": f"anon 1\ninactive_file {50 * MB}\nactive_file 7\n",
            },
            150,
        ),
        ("0::/a\n", {"a/memory.max": f"{100 * MB}", "a/memory.current": f"{200 * MB}"}, 0),
        ("0::/of/the/host\n", {"memory.max": f"{300 * MB}", "memory.current": "0"}, 300),
        (
            "4:memory:/g\n0::/\n",
            {
                "memory/g/memory.limit_in_bytes": f"{300 * MB}",
                "memory/g/memory.usage_in_bytes": f"{200 * MB}",
                "memory/g/memory.stat": f"inactive_file 1\ntotal_inactive_file {20 * MB}\n",
            },
            120,
        ),
        (
            "4:memory:/\n",
            {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "5"},
            900,
        ),
        ("4:cpu:/g\n", {"cpu/g/memory.limit_in_bytes": "1", "cpu/g/memory.usage_in_bytes": "1"}, 900),
    ],
)
def test_what_control_groups_leave(tmp_path: Path, own: str, files: dict[str, str], free: int) -> None:
    assert memory.free_ram(system(tmp_path, 900 * MB), *groups(tmp_path, own, files)) == free * MB


def test_the_limit_of_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (100 * MB, 200 * MB))
    assert memory.free_ram(system(tmp_path, 900 * MB), NOTHING, NOTHING) == 100 * MB


def test_a_system_that_says_it_otherwise(tmp_path: Path) -> None:
    assert memory.free_ram(NOTHING, NOTHING, NOTHING) is not None
    (tmp_path / "meminfo").write_text("MemAvailable: much\n")
    assert memory.free_ram(tmp_path / "meminfo", NOTHING, NOTHING) is not None


def test_what_macos_prints() -> None:
    told = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            500000.
Pages inactive:                           20000.
Pages speculative:                         3000.
Pages throttled:                              0.
Pages wired down:                        100000.
Pages purgeable:                            400.
"""
    assert memory.read_vm_stat(told) == 16384 * 33400
    assert memory.read_vm_stat("vm_stat: no such thing") is None
