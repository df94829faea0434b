"""Where specee-chat keeps its files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from specee.app.errors import as_app_error
from specee.models import local_file

APP_NAME = "specee-chat"
ENV_DATA_DIR = "SPECEE_DATA_DIR"
CONFIG_FILE = "config.toml"


def expand(name: str) -> Path:
    """A path as a user writes it, with ~ for a home folder. Raises AppError for the home of nobody."""
    try:
        return local_file.expand(name)
    except local_file.NoHomeError as error:
        raise as_app_error(error) from None


@dataclass(frozen=True)
class Paths:
    """Folders of one installation; nothing is created before it is needed."""

    data: Path
    cache: Path
    config: Path
    """The file config.toml."""

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def calibrations(self) -> Path:
        return self.data / "calibrations"

    @property
    def heads(self) -> Path:
        return self.data / "heads"

    @property
    def history(self) -> Path:
        return self.data / "history.sqlite"

    @property
    def measurements(self) -> Path:
        return self.data / "measurements.json"

    @property
    def speed(self) -> Path:
        """What this machine decodes at, whatever the model."""
        return self.data / "speed.json"

    def as_dict(self) -> dict[str, str]:
        names = ("data", "cache", "logs", "calibrations", "heads", "measurements", "speed", "history", "config")
        return {name: str(getattr(self, name)) for name in names}


def find(data_dir: str | None = None) -> Paths:
    """The folders; `data_dir` (or the environment's SPECEE_DATA_DIR) puts all of them into one place."""
    chosen = data_dir or os.environ.get(ENV_DATA_DIR)
    if chosen:
        data = expand(chosen).absolute()
        return Paths(data, data / "cache", data / CONFIG_FILE)
    import platformdirs

    return Paths(
        Path(platformdirs.user_data_dir(APP_NAME, False)),
        Path(platformdirs.user_cache_dir(APP_NAME, False)),
        Path(platformdirs.user_config_dir(APP_NAME, False)) / CONFIG_FILE,
    )
