"""The file config.toml: what is in it, and how one line of it is changed. All else stays as it is, comments too."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specee.app import settings
from specee.app.errors import FAILURE, USAGE, AppError
from specee.models import local_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

MAX_BYTES = 1 << 20
PERSONAS, PROMPTS = "personas", "prompts"
"""The tables in it: texts by their names."""
_MARK = b"\xef\xbb\xbf"  # of Windows, before a text in UTF-8


def read(path: Path) -> dict[str, Any]:
    """What the file says; nothing where there is none. Raises AppError for what is no TOML."""
    return _parse(path, _content(path))


def texts(path: Path, table: str, content: Mapping[str, Any]) -> dict[str, str]:
    """The texts in a table of such a file, by their names. Raises AppError."""
    given = content.get(table, {})
    if not isinstance(given, dict):
        what = "system message" if table == PERSONAS else "text"
        raise bad(path, f"[{table}] has lines of the form name = '{what}'")
    for name, text in given.items():
        if not name.strip():
            raise bad(path, f"[{table}] has one whose name is empty")
        try:
            settings.read(settings.Text, text)
        except ValueError as error:
            raise bad(path, f"[{table}] {name}: {error}") from None
    return given


def change(path: Path, changes: Mapping[str, object], table: str | None = None) -> None:
    """Writes these keys into the file, or into a table of it; those with None are taken out. Raises AppError, and then
    the file is as it was."""
    import tomlkit  # now: most starts change nothing

    content = _content(path)
    before = _parse(path, content)
    after = {**before, table: dict(before.get(table, {}))} if table else dict(before)
    wanted = after[table] if table else after
    try:
        document = tomlkit.parse(content.removeprefix(_MARK).decode("utf-8"))
        if table and table not in document:
            document[table] = tomlkit.table()
        target: Any = document[table] if table else document
        new = {}
        for key, value in changes.items():
            if value is None:
                wanted.pop(key, None)
                if key in target:
                    target.remove(key)
                continue
            if key not in target and not table:
                new[key] = value
            elif wanted.get(key) != value:
                target[key] = value
            wanted[key] = value
        text = _with_new_lines(document, tomlkit.dumps(new))
        if tomllib.loads(text) != after:
            raise ValueError
    except (ValueError, LookupError, AttributeError, TypeError):
        lines = ", ".join(f"{key} = {settings.shown(value)}" for key, value in changes.items() if value is not None)
        why = f"{path} is written in a way that cannot be changed from here"
        raise AppError("not kept", f"{why}{f'; write there: {lines}' if lines else ''}") from None
    _write(path, (_MARK if content.startswith(_MARK) else b"") + text.encode("utf-8"))


def _with_new_lines(document: TOMLDocument, lines: str) -> str:
    """The file with these lines behind the last one that is not in a table: what follows may belong to the table."""
    from tomlkit.items import AoT, Table

    if not lines:
        return document.as_string()
    # not document.values(), which has a bool instead of its item
    above = [item for key, item in document.body if key is not None and not isinstance(item, (AoT, Table))]
    if not above:
        return lines + ("\n" if document else "") + document.as_string()
    trivia = above[-1].trivia
    end = trivia.trail or "\n"
    trivia.trail = end + lines.replace("\n", end)
    return document.as_string()


def bad(path: Path, why: str) -> AppError:
    """For a file that cannot be used."""
    return AppError("bad config", f"{path}: {why}", USAGE)


def _content(path: Path) -> bytes:
    try:
        return local_file.read(path, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except (local_file.NotRegularError, local_file.TooLargeError, local_file.EndlessError):
        raise bad(path, f"it is no file of at most {MAX_BYTES} bytes") from None
    except OSError as error:
        raise bad(path, error.strerror or str(error)) from error


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = tomllib.loads(content.decode("utf-8-sig"))
        return found
    except UnicodeDecodeError as error:
        raise bad(path, "it is not in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise bad(path, f"it is not TOML: {error}") from error
    except ValueError as error:
        raise bad(path, "a number in it has too many digits") from error
    except RecursionError:
        raise bad(path, "lists or tables in each other, too deep") from None


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, where the file really is: it may be a link into a folder that the user keeps in order."""
    try:
        place = path.resolve()
        local_file.make_folder(place.parent)
        part = place.with_name(f"{place.name}.{os.getpid()}")
        try:
            with os.fdopen(local_file.open_private(part), "wb") as file:
                file.write(content)
            if place.exists():
                shutil.copymode(place, part)
            part.replace(place)
        finally:
            with suppress(OSError):
                part.unlink()
    except OSError as error:
        raise AppError("not kept", f"{path}: {error.strerror or error}", FAILURE) from error
