"""Names of files behind an @: which there are, how they are written, and what a terminal pastes for a dropped file."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from specee.app.chat import file_completion
from specee.app.chat.file_reference import files_named

NAMES = ["notes.txt", "my notes.txt", "Äpfel.md", "it's.txt", 'a "b".txt', "end.", 'it\'s "both".txt', "a,b;c.md"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (*NAMES, ".hidden", "two.log"):
        (tmp_path / name).write_text("x" * 10)
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "in it.txt").write_text("y" * 4000)
    return tmp_path


@pytest.mark.parametrize(
    ("before", "name"),
    [
        ("@", ""),
        ("see @no", "no"),
        ("(@no", "no"),
        ('@"my no', "my no"),
        ("@my\\ no", "my no"),
        ("first\n@no", "no"),
        ("@done.txt ", None),
        ("mail@no", None),
        ('@"my notes.txt" ', None),
        ("no", None),
    ],
)
def test_where_a_name_is_begun(before: str, name: str | None) -> None:
    found = file_completion.begun(before)
    assert (found[1] if found is not None else None) == name
    if found is not None:
        assert before[found[0]] == "@"


def names(beginning: str) -> list[str]:
    return [one.name for one in file_completion.choices(beginning)]


def test_what_is_there(folder: Path) -> None:
    assert names("no") == names("NO") == ["notes.txt"]
    assert names("a f") == ["a folder/"] and names("a folder/") == ["in it.txt"]
    assert ".hidden" not in names("") and names(".") == [".hidden"]
    assert names(f"{folder}/tw") == ["two.log"]
    assert names("nothing") == names("no/such/") == names("~nobody-here/") == names("a\0b/") == []
    assert [one.about for one in file_completion.choices("a folder/in")] == ["4 kB, about 1,000 tokens"]


def test_what_is_written_for_a_name_names_it(folder: Path) -> None:
    """With the name of a file, and text behind it."""
    for name in NAMES:
        [found] = [one for one in file_completion.choices(name) if one.name == name]
        assert [path.name for path in files_named(f"see {found.reference} and more")] == [name]
    [inner] = file_completion.choices("a folder/in")
    assert inner.reference == '@"a folder/in it.txt"'
    [outer] = file_completion.choices("a f")
    assert outer.reference == '@"a folder/' and file_completion.begun(outer.reference) == (0, "a folder/")


def test_what_goes_with_a_prompt(folder: Path) -> None:
    assert file_completion.attached("@notes.txt and @user") == "attached: notes.txt (10 bytes, about 3 tokens)"
    assert file_completion.attached("@user") == file_completion.attached("@no/such.txt") == ""


@pytest.mark.parametrize("form", ["{path}", "'{path}'", "{escaped}", "file://{url}", "{path}\n", "{quoted} {quoted2}"])
def test_dropped_files(form: str, folder: Path) -> None:
    path, other = folder / "my notes.txt", folder / "two.log"
    pasted = form.format(
        path=path,
        escaped=str(path).replace(" ", "\\ "),
        url=str(path).replace(" ", "%20"),
        quoted=shlex.quote(str(path)),
        quoted2=shlex.quote(str(other)),
    )
    wanted = [path, other] if "quoted2" in form else [path]
    assert list(files_named(file_completion.dropped(pasted))) == wanted


@pytest.mark.parametrize("pasted", ["{path} is it", "see {path}", "{folder}", "notes.txt", "/no/such", "'{path}", ""])
def test_a_text_that_has_a_path_stays_text(pasted: str, folder: Path) -> None:
    assert file_completion.dropped(pasted.format(path=folder / "notes.txt", folder=folder)) == ""


def test_a_large_folder_is_looked_at_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def is_dir(self) -> bool:
            asked.append(self.name)
            return False

        def stat(self) -> os.stat_result:
            return tmp_path.stat()

    class Entries:
        def __enter__(self) -> Entries:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self) -> object:
            return (Entry(f"n{number}") for number in range(10**9))

    monkeypatch.setattr(os, "scandir", lambda _: Entries())
    assert len(file_completion.choices("n")) == file_completion.MOST_ENTRIES == len(asked)
