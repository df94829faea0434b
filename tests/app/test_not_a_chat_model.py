"""What is no chat model is one line and exit code 3, from every command that takes a model."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import changed_gguf
import tiny_eagle
import tiny_gguf
from gguf import GGUFValueType as Type
from real_engine import missing_library

from specee.app import paths
from specee.app.chat import kept_model
from specee.app.chat.history.store import Store
from specee.app.chat.session import Session
from specee.app.cli import model_details, model_list
from specee.app.engine.loading import open_backend
from specee.app.options import LoadOptions
from specee.models import cache, resolve
from specee.models.errors import ModelError, NotAChatModelError

PROGRAM = [sys.executable, "-c", "from specee.app.cli.main import main; main()"]
EMBEDS, PAGE, NEW = "an embedding model", "a web page", "needs a newer specee-chat"
HEAD = "cannot answer alone; give it as --drafter"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    changed_gguf.write(tiny, tmp_path / "embeds.gguf", {".pooling_type": (Type.UINT32, 1)})
    changed_gguf.write(tiny, tmp_path / "new.gguf", {}, arch="llama9")
    changed_gguf.write(tiny, tmp_path / "no_tokenizer.gguf", {"tokenizer.ggml.model": None})
    tiny_eagle.write(tmp_path / "head.gguf", tiny, (1, 3, 5))
    (tmp_path / "page.gguf").write_text("<!doctype html>")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "embeds.gguf", "-p", "Hi"], EMBEDS),
        (["--model", "page.gguf"], PAGE),
        (["--model", "new.gguf", "-p", "Hi", "--json"], NEW),
        (["--model", "head.gguf", "-p", "Hi"], HEAD),
        (["models", "show", "embeds.gguf"], EMBEDS),
        (["models", "show", "no_tokenizer.gguf"], "without a tokenizer"),
        (["models", "optimize", "new.gguf"], NEW),
        (["models", "optimize", "head.gguf"], HEAD),
        (["models", "optimize", "embeds.gguf"], EMBEDS),
        (["models", "pull", "page.gguf"], PAGE),
        (["calibrate", "--model", "embeds.gguf"], EMBEDS),
        (["calibrate", "--model", "head.gguf"], HEAD),
        (["train", "--model", "embeds.gguf"], EMBEDS),
        (["bench", "--model", "no_tokenizer.gguf"], "without a tokenizer"),
        (["serve", "--model", "new.gguf"], NEW),
        (["serve", "--model", "head.gguf"], HEAD),
        (["--model", "tiny.gguf", "--drafter", "embeds.gguf", "-p", "Hi"], EMBEDS),
        (["--model", "tiny.gguf", "--drafter", "page.gguf", "-p", "Hi"], PAGE),
        (["bench", "--model", "tiny.gguf", "--drafter", "new.gguf"], NEW),
        (["serve", "--model", "tiny.gguf", "--drafter", "no_tokenizer.gguf"], "its tokenizer is None"),
    ],
)
def test_every_command_says_it_in_one_line(folder: Path, arguments: list[str], says: str) -> None:
    env = {**os.environ, "SPECEE_DATA_DIR": str(folder / "data")}
    done = subprocess.run(
        [*PROGRAM, *arguments], env=env, cwd=folder, input="Hi", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 3 and done.stdout == "", done.stderr
    assert done.stderr.startswith("specee-chat: ") and done.stderr.count("\n") == 1 and says in done.stderr


@pytest.mark.skipif(missing_library() is not None, reason="no native library")
def test_the_engine_and_the_screen_refuse_it_too(folder: Path) -> None:
    for name in ("embeds", "new", "no_tokenizer", "head", "page"):
        with pytest.raises(ModelError):
            open_backend(
                LoadOptions(model=str(folder / f"{name}.gguf"), data_dir=str(folder)), lambda what, share: None
            )
        assert kept_model.lost(str(folder / f"{name}.gguf")) is not None
    session = Session(LoadOptions(model=str(folder / "tiny.gguf")), None, lambda *_: None, Store(None))
    with closing(session), pytest.raises(NotAChatModelError):
        session.use_model(str(folder / "embeds.gguf"))


def test_a_head_is_shown_and_one_that_runs_nowhere_says_why(folder: Path, tmp_path: Path) -> None:
    facts = model_details.facts(str(folder / "head.gguf"), paths.find(str(folder)), None)
    assert "it reads layers 1, 3, 5 of its model: --drafter FILE" in model_details.text(facts)
    path = tiny_eagle.write(folder / "odd.gguf", folder / "tiny.gguf", (1, 3, 5), n_known=40, first_known=90)
    facts = model_details.facts(str(path), paths.find(str(folder)), None)
    assert "an EAGLE-3 head that llama.cpp cannot run: it is for tokens that there are not" in model_details.text(facts)
    content = (folder / "head.gguf").read_bytes().replace(b"eagle3", b"dflash")
    (folder / "dflash.gguf").write_bytes(content)
    facts = model_details.facts(str(folder / "dflash.gguf"), paths.find(str(folder)), None)
    assert "a DFlash head, which specee-chat does not run" in model_details.text(facts)


def test_the_list_of_models_says_what_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cache.CachedModel("owner/embeds", "embeds.gguf", (folder / "embeds.gguf",))
    page = cache.CachedModel("owner/page", "page.gguf", (folder / "page.gguf",))
    monkeypatch.setattr(cache, "models", lambda: iter((found, page)))
    rows = {row.name: row for row in model_list.rows(paths.find(str(folder)))}
    assert rows["hf:owner/embeds:embeds.gguf"].where == "cache"
    assert EMBEDS in rows["hf:owner/embeds:embeds.gguf"].notes
    assert rows["hf:owner/page:page.gguf"].where == "damaged"


def test_a_folder_is_the_model_in_it(folder: Path) -> None:
    sub = folder / "sub"
    sub.mkdir()
    for name in ("tiny.gguf", "embeds.gguf", "head.gguf"):
        (folder / name).rename(sub / name)
    assert resolve.resolve(str(sub)).path == sub / "tiny.gguf"
