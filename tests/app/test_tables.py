"""Tables, sizes and times, and the line of progress."""

from __future__ import annotations

import io
import os
from types import SimpleNamespace

import pytest

from specee.app import formatting
from specee.app.cli import progress_line, tables
from specee.app.cli.progress_line import ProgressLine
from specee.app.cli.tables import Column
from specee.models.transfer import TransferProgress

NOTE = "a note that is rather long for a narrow terminal"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard output and error on a terminal of 30 columns."""
    terminal = Terminal()
    for module in (tables, progress_line):
        monkeypatch.setattr(module, "sys", SimpleNamespace(stdout=terminal, stderr=terminal))
    monkeypatch.setattr(progress_line.shutil, "get_terminal_size", lambda: os.terminal_size((30, 24)))
    monkeypatch.setattr(progress_line, "REDRAW_SECONDS", 0.0)
    return terminal


def test_a_table_in_a_file_has_a_line_a_row() -> None:
    text = tables.table(
        [Column("NAME"), Column("SIZE", right=True), Column("NOTES", rigid=False)],
        [("a", "1 kB", ""), ("[bold]", "98.4 MB", NOTE * 9), ("日本", "2 kB", "x")],
    )
    assert text.splitlines() == [
        "NAME       SIZE  NOTES",
        "a          1 kB",
        f"[bold]  98.4 MB  {NOTE * 9}",
        "日本       2 kB  x",
    ]


def test_a_narrow_terminal_folds_what_may_fold(narrow: Terminal) -> None:
    lines = tables.table([Column("NAME"), Column("NOTES", rigid=False)], [("some-name", NOTE)]).splitlines()
    assert len(lines) > 2 and all(len(line) <= 30 for line in lines)
    assert lines[1].startswith("some-name  a note")
    path = "/" + "x" * 60
    assert tables.pairs([("data", path)], width=8) == f"data      {path}"  # to be copied


def test_progress_on_a_terminal_is_one_line_that_goes_away(narrow: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specee.app.cli.progress_line.control", narrow.write)
    with ProgressLine() as line:
        line.show("loading", "10%")
        line.show("loading", "20%" * 20)
    written = narrow.getvalue().split("\r\x1b[2K")
    assert written[0] == written[-1] == "" and written[1] == "loading  10%"
    assert len(written[2]) == 29 and "\n" not in narrow.getvalue()


def test_progress_elsewhere_is_a_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine() as line:
        for step, progress in (("loading", "1%"), ("loading", "50%"), ("asking", "")):
            line.show(step, progress)
    assert capsys.readouterr().err == "loading\nasking\n"


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(0, "0 kB"), (141_000, "141 kB"), (98_362_432, "98.4 MB"), (4.08e9, "4.1 GB")]
)
def test_sizes(n_bytes: float, text: str) -> None:
    assert formatting.size(n_bytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (750, "12:30"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert formatting.duration(seconds) == text


def test_transfers() -> None:
    assert formatting.transfer(TransferProgress(44_300_000, 98_400_000, 3.1e6, 17.2)) == (
        " 45%  44.3 MB of 98.4 MB  3.1 MB/s  0:17 left"
    )
    assert formatting.transfer(TransferProgress(0, 100_000)) == "  0%  0 kB of 100 kB"
