"""Files that users name for us to write, and questions before something is deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from specee.app import output_file
from specee.app.chat.history.store import Store
from specee.app.cli.program import program
from specee.app.errors import FAILURE, OK, USAGE, AppError, as_app_error


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_file_is_written(folder: Path) -> None:
    assert output_file.write("new.md", "one\ntwo 日本\n") == folder / "new.md"
    assert (folder / "new.md").read_bytes() == "one\ntwo 日本\n".encode()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("old.md", "already there: .*old.md exists; delete it, or give another name"),
        ("link.md", "exists"),
        ("nowhere.md", "exists"),
        (".", "is a folder"),
        ("gone/new.md", "gone/new.md: there is no such folder"),
        ("old.md/new.md", "no such folder"),
        ("~nobody99/new.md", "no such user"),
        ("x" * 300, "too long"),
        ("/proc/new.md", "/proc/new.md"),
    ],
)
def test_nothing_is_overwritten(folder: Path, name: str, says: str) -> None:
    (folder / "old.md").write_text("old")
    (folder / "link.md").symlink_to("old.md")
    (folder / "nowhere.md").symlink_to("gone.md")
    with pytest.raises(AppError, match=says) as caught:
        output_file.write(name, "new")
    assert caught.value.exit_code == USAGE
    assert (folder / "old.md").read_text() == "old" and not (folder / "gone.md").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is Linux's")
def test_a_place_that_takes_no_files_is_refused_at_once(folder: Path) -> None:
    """Also to root, whom the system calls allowed to write there."""
    with pytest.raises(AppError, match=r"/proc/new\.gguf"):
        output_file.check_new("/proc/new.gguf")
    assert output_file.check_new("new.gguf") == folder / "new.gguf" and not (folder / "new.gguf").exists()


def test_a_device_is_written_to_and_a_full_one_is_an_error(folder: Path) -> None:
    assert output_file.write("/dev/null", "new") == Path("/dev/null")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(AppError, match="No space left") as caught:
        output_file.write("/dev/full", "new")
    assert caught.value.exit_code == FAILURE


# ---- the commands ---------------------------------------------------------------------------------------------------


@pytest.fixture
def data(folder: Path) -> str:
    store = Store(folder / "data" / "history.sqlite")
    for title in ("first", "second"):
        store.add_question(store.new_chat(title, None, {}).id, None, title)
    store.close()
    return str(folder / "data")


def call(data: str, *arguments: str) -> tuple[int, str]:
    """The exit code, and the error's line."""
    done = CliRunner().invoke(program, ["--data-dir", data, *arguments], standalone_mode=False)
    if done.exception is not None:
        error = as_app_error(done.exception)
        return error.exit_code, error.line
    result: Any = done.return_value
    return result, ""


def chats(data: str) -> list[str]:
    store = Store(Path(data) / "history.sqlite")
    titles = [chat.title for chat in store.chats()]
    store.close()
    return titles


@pytest.mark.parametrize(
    "arguments",
    [
        ("history", "export", "1", "--output", "old"),
        ("calibrate", "--output", "old"),
        ("models", "optimize", "--output", "old"),
        ("bench", "--svg", "old"),
    ],
)
def test_commands_leave_what_is_there_before_they_begin(folder: Path, data: str, arguments: tuple[str, ...]) -> None:
    (folder / "old").write_text("old")
    code, line = call(data, *arguments)
    assert code == USAGE and "already there" in line and (folder / "old").read_text() == "old"


def test_a_chat_is_exported_to_a_new_file(folder: Path, data: str) -> None:
    assert call(data, "history", "export", "1", "--output", "sky.md") == (OK, "")
    assert (folder / "sky.md").read_text().startswith("# first\n")


def test_nothing_is_deleted_where_nobody_can_be_asked(data: str) -> None:
    code, line = call(data, "history", "rm", "1", "2")
    assert code == USAGE and line == "nobody to ask: give --yes to agree to this: Delete 'first', 'second'?"
    assert len(chats(data)) == 2
    code, line = call(data, "history", "rm", "1", "99", "--yes")
    assert code == USAGE and "no such chat" in line and len(chats(data)) == 2
    assert call(data, "history", "rm", "1", "1", "--yes") == (OK, "")
    assert chats(data) == ["second"]


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("n", 2), ("", 2)])
def test_a_question_comes_first(data: str, answer: str, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specee.app.cli.confirm.can_ask", lambda: True)
    done = CliRunner().invoke(
        program, ["--data-dir", data, "history", "rm", "1", "2"], input=f"{answer}\n", standalone_mode=False
    )
    assert "Delete 'second', 'first'?" in done.output or "Delete 'first', 'second'?" in done.output
    assert len(chats(data)) == left
    assert (done.exception is None) == (left == 0)
