"""The script that measures smoothness runs. Its figures are for an idle machine; only far outliers fail here."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(os.name != "posix", reason="pseudo terminals are for Unix")
@pytest.mark.parametrize("what", ["answer", "chat"])
def test_a_long_answer_and_a_long_chat_are_drawn(what: str, tmp_path: Path) -> None:
    import pseudo_terminal
    import screen_smoothness

    script, report = screen_smoothness.__file__, tmp_path / "report.json"
    command = [sys.executable, script, "--tokens", "400", "--turns", "120", "--inside", what, str(report)]
    code, end = pseudo_terminal.run(command)
    assert code == 0 and report.exists(), end
    found = json.loads(report.read_text())
    assert found["scroll"]["count"] == 300 and found["lag"]["median"] < 500
    assert found["flush"]["count"] > 5 if what == "answer" else found["earlier"]["count"] == 3
