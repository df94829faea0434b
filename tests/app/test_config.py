"""config.toml, attached files, exports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_gguf

from specee.app import settings
from specee.app.chat.attachments import attach
from specee.app.chat.history import export
from specee.app.chat.history.store import Store
from specee.app.cli import config
from specee.app.cli.program import program
from specee.app.errors import PROMPT_TOO_LONG, AppError
from specee.app.text_input import LIMIT

WANTED = {"max_tokens", "offline", "threshold", "system", "model", "policy", "rule", "persona", "when_full", "stats"}
WANTED |= {"temperature", "ctx", "top_k", "seed", "drafter"}
KNOWN = [option for option in program.params if option.name in WANTED]


def test_a_config_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    assert config.read(file, KNOWN) == config.Config()
    file.write_text('max-tokens = 200\nthreshold = 0.5\noffline = true\n[personas]\ntutor = "Explain."\n')
    found = config.read(file, KNOWN)
    assert found.defaults == {"max_tokens": 200, "threshold": 0.5, "offline": True}
    assert found.personas == {"tutor": "Explain."}


def commands(group: click.Group, *before: str) -> Iterator[list[str]]:
    """All that can be typed, with an argument where one is needed."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        arguments = [one for one in command.params if isinstance(one, click.Argument) and one.required]
        needed = [(*settings.choices(one.type.kind), "1")[0] for one in arguments]  # type: ignore[attr-defined]
        yield [*before, name, *needed]


@pytest.mark.parametrize("line", [[], *commands(program)], ids=" ".join)
def test_the_file_is_that_of_the_folder_that_is_named(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the option stands; what is wrong in another folder's does not matter."""
    other, named = tmp_path / "other", tmp_path / "named"
    for folder in (other, named):
        folder.mkdir()
        (folder / "config.toml").write_text(f"nothing-of-{folder.name} = 1")
    monkeypatch.setenv("SPECEE_DATA_DIR", str(other))
    option = ["--data-dir", str(named)]
    for i in {0, *range(min(1, len(line)), len(line) + 1)}:
        with pytest.raises(AppError, match=r"named.*nothing-of-named"):
            program.main([*line[:i], *option, *line[i:]], standalone_mode=False)
    with pytest.raises(AppError, match=r"other.*nothing-of-other"):
        program.main(line, standalone_mode=False)


@pytest.mark.parametrize("command", ["serve", "calibrate", "train", "bench"])
def test_what_the_file_says_holds_for_a_command_before_the_folder(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, named = tmp_path / "other", tmp_path / "named"
    for folder in (other, named):
        folder.mkdir()
        (folder / "config.toml").write_text(f"model = '/no/{folder.name}.gguf'")
    monkeypatch.setenv("SPECEE_DATA_DIR", str(other))
    for line in ([command, "--data-dir", str(named)], ["--data-dir", str(named), command]):
        with pytest.raises(AppError, match=r"named.config\.toml: model: there is no file /no/named\.gguf"):
            program.main(line, standalone_mode=False)
    for line in (["--model", "/no/typed.gguf", command], [command, "--model", "/no/typed.gguf"]):
        with pytest.raises(AppError, match=r"model not found: there is no file /no/typed\.gguf"):
            program.main([*line, "--data-dir", str(named)], standalone_mode=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_token = 3", "did you mean max-tokens"),
        ("data-dir = '/x'", "no option"),
        ("max-tokens = [true, 'a']", r"max-tokens: \[true, 'a'\] is not a whole number"),
        ("max-tokens = {a = false}", "max-tokens: {'a': false} is not a whole number"),
        ("offline = [true]", r"offline: \[true\] is not true or false"),
        ("max-tokens = [1]", "max-tokens: .* not a whole number from 1 to 1000000"),
        *(
            (f'{name} = "{value}"', f"{name}: '{value}' is not a")
            for name, value in (("max-tokens", "4"), ("temperature", "0.5"), ("threshold", "0.5"), ("ctx", "512"))
        ),
        ('top-k = "1"', "top-k: '1' is not a whole number"),
        ('seed = "1"', "seed: '1' is not a whole number"),
        ('offline = "true"', "offline: 'true' is not true or false"),
        ("offline = 1", "offline: 1 is not true or false"),
        ("max-tokens = 4.0", "max-tokens: 4.0 is not a whole number"),
        ("max-tokens = true", "max-tokens: true is not a whole number"),
        ("system = 3", "system: 3 is not text"),
        ("model = 3", "model: 3 is not a name"),
        ("policy = 3", "policy: 3 is not"),
        ("rule = 1979-05-27", "rule: 1979-05-27 is not one of"),
        ("when-full = true", "when-full: true is not one of"),
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


@pytest.mark.parametrize(
    ("key", "value", "title"),
    [
        ("drafter", "nix", "model not found"),
        ("drafter", "~/nix.gguf", "model not found"),
        ("drafter", "llama3.2-1b", "model not here"),
        ("drafter", "damaged.gguf", "not a model"),
        ("model", "nix", "model not found"),
        ("model", "~/nix.gguf", "model not found"),
        ("model", "~nobody-of-this-name/nix.gguf", "no such user"),
        ("model", "hf:x", "model not found"),
        ("model", "damaged.gguf", "not a model"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str, title: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    Path("damaged.gguf").write_text("x")
    tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    file = tmp_path / "config.toml"
    file.write_text(f'{key} = "{value}"\n')
    other = ["--model", "tiny.gguf"] if key == "drafter" else []
    code, line = _run("--data-dir", str(tmp_path), *other, "-p", "x")
    assert code == 3 and line.startswith(f"specee-chat: {title}: {file}: {key}: "), line
    typed = [f"--{key}", "nix.gguf"]
    code, line = _run("--data-dir", str(tmp_path), *other, *typed, "-p", "x")
    assert code == 3 and str(file) not in line, "it was typed"


def test_settings_that_exclude_each_other_are_named_with_their_keys(
    tmp_path: Path,
) -> None:
    file = tmp_path / "config.toml"
    for text, keys in (
        ('policy = "chain:typical"\nacceptance = "exact"', "policy, acceptance"),
        ('policy = "exact"\nrule = "margin"\ndraft-length = 3', "policy, rule, draft-length"),
    ):
        file.write_text(text)
        code, line = _run("-p", "x", "--data-dir", str(tmp_path))
        assert code == 2 and line.startswith(f"specee-chat: these exclude each other: {file}: {keys}: "), line


def _run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from specee.app.cli.main import main; main()", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    (line,) = done.stderr.splitlines()
    return done.returncode, line


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
