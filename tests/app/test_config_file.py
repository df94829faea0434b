"""config.toml as the screen changes it: only what is changed becomes another."""

from __future__ import annotations

from pathlib import Path

import pytest

from specee.app import config_file
from specee.app.errors import AppError

OURS = """# how I like it
temperature = 0.3   # cool
max_tokens = 200

# people
[personas]
tutor = "Explain."  # patient
"quoted name" = '''
Two
lines.
'''
"""


@pytest.mark.parametrize(
    ("changes", "table", "before", "after"),
    [
        ({"temperature": 0.5}, None, "temperature = 0.3 ", "temperature = 0.5 "),
        ({"max_tokens": None}, None, "max_tokens = 200\n", ""),
        ({"seed": 7}, None, "max_tokens = 200\n", "max_tokens = 200\nseed = 7\n"),
        ({"tutor": "Ask."}, "personas", '"Explain."', '"Ask."'),
        ({"tutor": None}, "personas", 'tutor = "Explain."  # patient\n', ""),
        ({"nothing": None}, None, "", ""),
        ({"temperature": 0.3}, None, "", ""),
    ],
)
def test_a_change_leaves_all_else_as_it_is(
    changes: dict[str, object], table: str | None, before: str, after: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(OURS)
    config_file.change(file, changes, table)
    assert file.read_text() == (OURS.replace(before, after) if before else OURS)


def test_a_table_and_a_file_are_made_when_they_are_needed(tmp_path: Path) -> None:
    file = tmp_path / "new" / "config.toml"
    config_file.change(file, {"a b": 'three """quotes"""\nand a line', "c": "d"}, "prompts")
    config_file.change(file, {"top-p": 0.5})
    assert config_file.read(file) == {"top-p": 0.5, "prompts": {"a b": 'three """quotes"""\nand a line', "c": "d"}}
    assert file.stat().st_mode & 0o077 == 0
    config_file.change(file, {"a b": None, "e": "d"}, "prompts")
    assert config_file.read(file)["prompts"] == {"c": "d", "e": "d"}


@pytest.mark.parametrize("value", [True, False, 7, 0.5, "text", "two\nlines", [1, 2]])
def test_a_line_is_added_behind_a_value_of_any_kind(value: object, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[personas]\ntutor = 'x'\n")
    config_file.change(file, {"first": value})
    config_file.change(file, {"second": True})
    config_file.change(file, {"third": 1})
    assert config_file.read(file) == {"first": value, "second": True, "third": 1, "personas": {"tutor": "x"}}


@pytest.mark.parametrize(
    "text", ["personas = {tutor = 'x'}\n", "[personas]\n\n[personas.deep]\na = 1\n", "", "# only\n"]
)
def test_unusual_files_are_changed_right_or_not_at_all(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    for table in (None, "personas"):
        try:
            config_file.change(file, {"new": "text"}, table)
        except AppError as error:
            assert "new = 'text'" in error.message
        else:
            found = config_file.read(file)
            assert (found if table is None else found[table])["new"] == "text"
        assert all(line in file.read_text() for line in text.splitlines() if "tutor" not in line)


def test_line_ends_and_a_mark_of_windows_stay(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xef\xbb\xbfseed = 1\r\ntop-k = 2\r\n")
    config_file.change(file, {"seed": 3})
    assert file.read_bytes() == b"\xef\xbb\xbfseed = 3\r\ntop-k = 2\r\n"


def test_a_link_stays_one_and_the_mode_stays(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "c.toml"
    real.parent.mkdir()
    real.write_text("seed = 1\n")
    real.chmod(0o644)
    link = tmp_path / "config.toml"
    link.symlink_to(real)
    config_file.change(link, {"seed": 2})
    assert link.is_symlink() and real.read_text() == "seed = 2\n" and real.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in real.parent.iterdir()] == ["c.toml"]


@pytest.mark.parametrize("content", [b"seed = ", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_damaged_file_is_left_alone(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(AppError, match="config"):
        config_file.change(file, {"seed": 2})
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "text", ["# of a table\n[personas]\na = 'b'\n", "seed = 1", "seed = 1\r\n[personas]\r\na = 'b'\r\n"]
)
def test_a_new_line_does_not_go_into_a_table(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(text.encode())
    config_file.change(file, {"top-k": 3, "min-p": 0.5})
    found = config_file.read(file)
    assert (
        (found["top-k"], found["min-p"]) == (3, 0.5) and "# of a table\n[personas]" in file.read_text()
    ) or "#" not in text
    assert text.count("\r\n") == 0 or file.read_bytes().count(b"\r\n") == file.read_bytes().count(b"\n")
