"""Personas and saved prompts, as config.toml has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from specee.app import config_file, settings
from specee.app.config_file import PERSONAS, PROMPTS
from specee.app.errors import USAGE, AppError

WORDS = {PERSONAS: "persona", PROMPTS: "saved prompt"}
"""What one of a table is called."""


class SavedTexts:
    """By table of config.toml, and there by name. `personas`: those that the program began with."""

    def __init__(self, path: Path, personas: Mapping[str, str]) -> None:
        self._path = path
        self.by_name: dict[str, Mapping[str, str]] = {PERSONAS: personas, PROMPTS: {}}

    def read(self) -> None:
        """Takes what the file has now. Raises AppError."""
        content = config_file.read(self._path)
        personas = config_file.texts(self._path, PERSONAS, content)
        self.by_name[PERSONAS] = {**self.by_name[PERSONAS], **personas}
        self.by_name[PROMPTS] = config_file.texts(self._path, PROMPTS, content)

    def find(self, table: str, name: str) -> str:
        """The text of this name. Raises AppError."""
        known = self.by_name[table]
        if name not in known:
            none = f"config.toml has no [{table}]; /{table[:-1]} save NAME makes one"
            choice = f"choose from {', '.join(sorted(known))}" if known else none
            raise AppError(f"unknown {WORDS[table]}", choice, USAGE)
        return known[name]

    def add(self, table: str, name: str, text: str) -> None:
        """Keeps a text under a name that is free. Raises AppError."""
        if not name:
            raise AppError("not kept", "it needs a name", USAGE)
        if name in self.by_name[table]:
            raise AppError("not kept", f"there is one that is called {name}", USAGE)
        self._keep(table, {name: settings.check(settings.Text, WORDS[table], text)})

    def rename(self, table: str, name: str, new: str) -> None:
        """Raises AppError."""
        text = self.find(table, name)
        if new == name:
            return
        if not new:
            raise AppError("not kept", "it needs a name", USAGE)
        if new in self.by_name[table]:
            raise AppError("not kept", f"there is one that is called {new}", USAGE)
        self._check_unused(table, name)
        self._keep(table, {name: None, new: text})

    def remove(self, table: str, name: str) -> None:
        """Raises AppError."""
        self.find(table, name)
        self._check_unused(table, name)
        self._keep(table, {name: None})

    def _check_unused(self, table: str, name: str) -> None:
        """Raises AppError for the persona that every chat begins with: without it none could begin."""
        if table == PERSONAS and config_file.read(self._path).get("persona") == name:
            why = f"config.toml has persona = {settings.shown(name)}, for every new chat; change that setting first"
            raise AppError("in use", why, USAGE)

    def _keep(self, table: str, changes: Mapping[str, str | None]) -> None:
        """Writes them into the file; those with None are deleted."""
        config_file.change(self._path, changes, table)
        texts = {**self.by_name[table], **changes}
        self.by_name[table] = {name: text for name, text in texts.items() if text is not None}
