"""config.toml: defaults for the options, and personas."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from specee.app import config_file, paths, settings
from specee.app.cli.option import Setting
from specee.app.config_file import bad as _bad
from specee.app.errors import AppError
from specee.models.errors import ModelError

_FILE, _DEFAULTS, _ERROR = "specee.config", "specee.defaults", "specee.config_error"
"""Where a click context has the file's path, what is in it, and what is wrong with it."""


@dataclass(frozen=True)
class Config:
    """`defaults` by the options' Python names, as if typed; `personas` are system messages by name."""

    defaults: dict[str, Any] = field(default_factory=dict)
    personas: dict[str, str] = field(default_factory=dict)


def find(context: click.Context, data_dir: str | None, options: Iterable[click.Parameter]) -> Config:
    """What the file of this data folder says, which becomes the context's; nothing where it is wrong (see `check`)."""
    found, error = Config(), None
    try:
        context.meta[_FILE] = paths.find(data_dir).config
        found = read(context.meta[_FILE], options)
    except AppError as wrong:
        error = wrong
    context.meta[_DEFAULTS], context.meta[_ERROR] = found.defaults, error
    return found


def check(context: click.Context) -> None:
    """Raises AppError for what is wrong in the file that was read last, when it is clear that no other will be."""
    if (error := context.meta.get(_ERROR)) is not None:
        raise error


def typed(context: click.Context) -> list[click.Parameter]:
    """What was given on the command line, and not by config.toml."""
    return [
        parameter
        for parameter in context.command.params
        if parameter.name in context.params
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]


def typed_values(context: click.Context) -> dict[str, Any]:
    """The values of these."""
    return {str(one.name): context.params[str(one.name)] for one in typed(context)}


def typed_before(context: click.Context) -> dict[str, Any]:
    """The values typed before the command of this context; the nearest win."""
    if (parent := context.parent) is None:
        return {}
    return {**typed_before(parent), **typed_values(parent)}


def read(path: Path, options: Iterable[click.Parameter]) -> Config:
    """What the file says of these options; nothing when there is none. Raises AppError for what is wrong in it.

    Keys are option names without the dashes in front: `max-tokens = 200`. A value may be what can be typed, but numbers
    are written as such.
    """
    content = config_file.read(path)
    personas = config_file.texts(path, config_file.PERSONAS, content)
    config_file.texts(path, config_file.PROMPTS, content)
    known = {str(option.name): option for option in options}
    defaults: dict[str, Any] = {}
    for key, value in content.items():
        if key in (config_file.PERSONAS, config_file.PROMPTS):
            continue
        name = key.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0].replace('_', '-')}?" if close else ""
            raise _bad(path, f"there is no option {settings.shown(key)}{hint}")
        if name in defaults:
            raise _bad(path, f"{key} stands there twice")
        try:
            defaults[name] = _value(known[name], value)
        except click.BadParameter as error:
            raise _bad(path, f"{key}: {error.message}") from None
        except AppError as error:
            raise _bad(path, f"{key}: {error.message}") from None
    if (persona := defaults.get("persona")) is not None and persona not in personas:
        raise _bad(path, f"persona: {settings.shown(persona)} is not under [personas]")
    return Config(defaults, personas)


def _value(option: click.Parameter, value: object) -> Any:
    """Raises BadParameter or AppError."""
    if getattr(option, "is_flag", False):
        if not isinstance(value, bool):
            raise click.BadParameter(f"{settings.shown(value)} is not true or false")
        return value
    kind = option.type.kind if isinstance(option.type, Setting) else settings.Text
    try:
        settings.read(kind, value, typed=False)  # TOML has types: "4" is no number there
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return option.type.convert(value, option, None)


@contextmanager
def naming_its_keys(values: Mapping[str, Any]) -> Iterator[None]:
    """An error inside, of which these values are the reason, names the file and the keys of those that are from it."""
    try:
        yield
    except (AppError, ModelError) as error:
        context = click.get_current_context(silent=True)
        keys = [
            name.replace("_", "-") for name, value in values.items() if context and _is_from_it(context, name, value)
        ]
        if context is None or not keys:
            raise
        why = f"{context.meta[_FILE]}: {', '.join(keys)}: {error.message}"
        raise AppError(error.title, why, error.exit_code) from error


def _is_from_it(context: click.Context | None, name: str, value: object) -> bool:
    defaults = context.meta.get(_DEFAULTS, {}) if context is not None else {}
    if value is None or name not in defaults or defaults[name] != value:
        return False
    while context is not None:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            return False
        context = context.parent
    return True
