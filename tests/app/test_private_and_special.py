"""The program's files: special ones in their places stop nothing, and new ones are for the user alone."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from specee.app import error_log, output_file, paths
from specee.app.bench.prompts import read_prompts
from specee.app.chat.history.store import Store
from specee.app.cli import config
from specee.app.cli.program import program
from specee.app.engine import datastore, process
from specee.app.engine.measurements import Drafting, Measurements
from specee.app.errors import USAGE, AppError
from specee.app.serve import server
from specee.models import file_hash

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and modes of Unix")


@pytest.fixture(params=["pipe", "zero"])
def special(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        path = tmp_path / name
        if request.param == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        return path

    return make


def test_what_a_user_names_is_refused(special: Callable[[str], Path]) -> None:
    with pytest.raises(AppError, match=r"bad config: .*: it is no file of at most"):
        config.read(special("config.toml"), [])
    with pytest.raises(AppError, match=r"prompts not readable: .*(: it is no regular file|has no prompts)$"):
        read_prompts(str(special("prompts.jsonl")))  # a pipe is read: nobody writes into this one
    with pytest.raises(AppError, match=r"cannot write: .* is no regular file") as caught:
        output_file.check_new(str(special("new.gguf")))
    assert caught.value.exit_code == USAGE


def test_a_history_is_refused(special: Callable[[str], Path]) -> None:
    for to_read in (False, True):
        with pytest.raises(AppError, match=r"the history cannot be used: .*: it is no regular file"):
            Store(special(f"{to_read}.sqlite"), to_read=to_read)


def test_what_is_remembered_is_made_again(special: Callable[[str], Path], tmp_path: Path) -> None:
    measurements = Measurements(special("measurements.json"))
    assert measurements.drafting == {}
    measurements.drafting["model"] = Drafting({1: 0.1})
    measurements.save()
    assert "model" in Measurements(tmp_path / "measurements.json").drafting
    special("hashes.json")
    model = tmp_path / "model"
    model.write_bytes(b"x")
    assert file_hash.sha256(model, tmp_path) == file_hash.known_sha256(model, tmp_path)


def test_a_datastore_is_made_again(special: Callable[[str], Path], tmp_path: Path) -> None:
    def make() -> None:
        found = datastore.open_datastore(lambda text: [5, 6, 7, 8, 9], "0" * 64, tmp_path)
        assert found.arrays()[0].size

    make()
    (stored,) = (tmp_path / "datastores").iterdir()
    stored.unlink()
    special(str(stored.relative_to(tmp_path)))
    make()
    assert stored.is_file()


def test_logs_go_nowhere(special: Callable[[str], Path], tmp_path: Path) -> None:
    special("errors.log")
    assert error_log.record(tmp_path, ValueError("x")) is None
    with process._open_log(special("engine.log")) as log:
        assert log.name != str(tmp_path / "engine.log")
    with pytest.raises(OSError, match="it is no regular file"):
        server._Log(special("serve.log"))


def test_new_files_are_for_the_user_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    where = paths.find(str(tmp_path / "some" / "data"))
    store = Store(where.history)
    store.new_chat("Hello", None, {})
    error_log.record(where.logs, ValueError("x"))
    process._open_log(where.logs / "engine.log").close()
    server._Log(where.logs / "serve.log").close()
    Measurements(where.measurements).save()
    file_hash.remember(Path(__file__), "0" * 64, where.cache)
    wal, shm = (where.history.with_name(f"history.sqlite-{end}") for end in ("wal", "shm"))
    logs = [where.logs / f"{name}.log" for name in ("errors", "engine", "serve")]
    for file in (where.history, wal, shm, *logs):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    for folder in (where.data.parent, where.data, where.logs, where.cache):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    store.close()


def test_what_is_there_keeps_its_mode(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    data.chmod(0o755)
    (data / "history.sqlite").touch()
    (data / "history.sqlite").chmod(0o640)
    Store(data / "history.sqlite").close()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (data, data / "history.sqlite")] == [0o755, 0o640]


@pytest.mark.parametrize("words", [[""], ["   "], ["", " "], ["\u200b"]], ids=repr)
def test_a_search_for_nothing_is_refused(words: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(program, ["--data-dir", str(tmp_path), "history", "search", *words])
    assert isinstance(done.exception, AppError) and done.exception.exit_code == USAGE
    assert done.exception.title == "nothing to search for"


# ---- a history that was begun, or changed ---------------------------------------------------------------------------


@pytest.mark.parametrize("statements", ["", "CREATE TABLE migrations (name TEXT PRIMARY KEY, applied REAL NOT NULL)"])
def test_a_history_that_a_full_disk_left_is_empty(
    tmp_path: Path, statements: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "history.sqlite"
    with sqlite3.connect(file) as begun:
        begun.execute("PRAGMA journal_mode = WAL")
        begun.executescript(statements)
    begun.close()

    def full(target: str) -> sqlite3.Connection:
        if target != ":memory:":
            raise sqlite3.OperationalError("database or disk is full")
        return connect(target)

    from specee.app.chat.history import database

    connect = database._connect
    monkeypatch.setattr(database, "_connect", full)
    store = Store(file, to_read=True)
    assert store.chats() == []
    store.close()
    with pytest.raises(AppError, match=r"the history cannot be used: .*; is its disk full"):
        Store(file)
    monkeypatch.undo()
    store = Store(file)
    assert store.new_chat("Hello", None, {}).id == 1
    store.close()


@pytest.mark.parametrize(
    "statements",
    [
        "DELETE FROM migrations",
        "DELETE FROM migrations WHERE name = 'attached'",
        "DROP TABLE turns",
        "DROP TABLE words",
        "ALTER TABLE turns DROP COLUMN attached",
    ],
)
def test_tables_that_are_not_as_they_should_be(tmp_path: Path, statements: str) -> None:
    file = tmp_path / "history.sqlite"
    store = Store(file)
    store.add_question(store.new_chat("Hello", None, {}).id, None, "Hello")
    store.close()
    with sqlite3.connect(file) as other:
        other.executescript(statements)
    other.close()
    what = "the history is damaged: .*: its tables are not as they should be .*; move|the history is damaged: .*move it"
    with pytest.raises(AppError, match=what):
        store = Store(file)
        try:
            chat = store.new_chat("Hello", None, {}).id
            store.add_question(chat, None, "Hello")
            store.branch(chat)
            store.search("hello")
        finally:
            store.close()
