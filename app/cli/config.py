"""config.toml: defaults for the options, and personas."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from specee.app.errors import USAGE, AppError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Config:
    """`defaults` by the options' Python names, as if typed; `personas` are system messages by name."""

    defaults: dict[str, str | bool] = field(default_factory=dict)
    personas: dict[str, str] = field(default_factory=dict)


def read(path: Path, known: Collection[str]) -> Config:
    """What the file says; nothing when there is none. Raises AppError for what it does not understand.

    Keys are option names without the dashes in front: `max-tokens = 200`. `known` has them with underscores.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise AppError("bad config", f"{path}: {error}", USAGE) from error
    personas = content.pop("personas", {})
    if not isinstance(personas, dict) or not all(isinstance(text, str) for text in personas.values()):
        raise AppError("bad config", f"{path}: [personas] has lines of the form name = 'system message'", USAGE)
    defaults: dict[str, str | bool] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0].replace('_', '-')}?" if close else ""
            raise AppError("bad config", f"{path}: there is no option {key!r}{hint}", USAGE)
        if isinstance(value, (dict, list)):
            raise AppError("bad config", f"{path}: {key} takes one value", USAGE)
        defaults[name] = value if isinstance(value, bool) else str(value)
    return Config(defaults, personas)
