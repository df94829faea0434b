"""Personas and saved prompts, as config.toml has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from specee.app import config_file
from specee.app.config_file import PERSONAS, PROMPTS


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

    def keep(self, table: str, changes: Mapping[str, str | None]) -> None:
        """Writes them into the file; those with None are deleted. Raises AppError."""
        config_file.change(self._path, changes, table)
        texts = {**self.by_name[table], **changes}
        self.by_name[table] = {name: text for name, text in texts.items() if text is not None}
