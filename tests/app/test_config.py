"""config.toml, attached files, exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specee.app.chat.attachments import attach
from specee.app.chat.history import export
from specee.app.chat.history.store import Store
from specee.app.cli import config
from specee.app.cli.program import program
from specee.app.errors import PROMPT_TOO_LONG, AppError
from specee.app.text_input import LIMIT

WANTED = {"max_tokens", "offline", "threshold", "system", "model", "policy", "rule", "persona", "when_full", "stats"}
KNOWN = [option for option in program.params if option.name in WANTED]


def test_a_config_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    assert config.read(file, KNOWN) == config.Config()
    file.write_text('max-tokens = 200\nthreshold = 0.5\noffline = true\n[personas]\ntutor = "Explain."\n')
    found = config.read(file, KNOWN)
    assert found.defaults == {"max_tokens": 200, "threshold": 0.5, "offline": True}
    assert found.personas == {"tutor": "Explain."}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_token = 3", "did you mean max-tokens"),
        ("data-dir = '/x'", "no option"),
        ("max-tokens = [1]", "max-tokens: .* not a whole number from 1 to 1000000"),
        ("= 3", "line 1"),
        ("[personas]\na = 3", "personas"),
    ],
)
def test_what_is_wrong_in_it_is_told(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(AppError, match=says) as caught:
        config.read(file, KNOWN)
    assert str(file) in caught.value.line and caught.value.exit_code == 2


def test_files_are_attached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("one\n```\ntwo\n")
    Path("my file.txt").write_text("three")
    text, files = attach('Compare @notes.txt, and @"my file.txt" for me@home and @nobody. @notes.txt')
    assert [file.path.name for file in files] == ["notes.txt", "my file.txt"]
    assert text == "\n\nnotes.txt:\n````\none\n```\ntwo\n````\n\nmy file.txt:\n```\nthree\n```"
    assert attach("@app.route and me@notes.txt") == ("", [])
    Path("b.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AppError, match=r"b\.bin is not text"):
        attach("@b.bin")
    Path("big.txt").write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(AppError, match="larger than") as caught:
        attach("see @big.txt")
    assert caught.value.exit_code == PROMPT_TOO_LONG


def test_exports() -> None:
    store = Store()
    chat = store.new_chat("Sky", "Be kind.", {})
    question = store.add_question(chat.id, None, "Why?")
    for state in ("complete", "interrupted"):
        store.add_answer(chat.id, question).finish(state)  # type: ignore[arg-type]
    store.cut_before(question, "We met.")
    chat, path = store.chat(chat.id), store.branch(chat.id)
    text = export.markdown(chat, path)
    assert text.startswith("# Sky\n\n*System: Be kind.*\n\n*What stands above is not sent any more. Summary: We met.*")
    assert "## You\n\nWhy?" in text and "## Model (interrupted)" in text
    whole = json.loads(json.dumps(export.tree_object(chat, store.tree(chat.id), path)))
    assert len(whole["turns"]) == 3 and whole["branch"] == [turn.id for turn in path]
    store.close()
