"""What is wrong in a command line, in our words: click finds it, and has words of its own."""

from __future__ import annotations

import click
from click.core import ParameterSource

from specee.app import settings
from specee.app.cli.completions import PROGRAM
from specee.app.errors import USAGE, AppError


def as_app_error(error: click.ClickException) -> AppError:
    """The same error as all others have it."""
    context: click.Context | None = getattr(error, "ctx", None)
    title, message = _words(error, context)
    help_of = context.command_path if context is not None else PROGRAM
    return AppError(title, f"{message} ({help_of} --help says more)", USAGE)


def _words(error: click.ClickException, context: click.Context | None) -> tuple[str, str]:
    if isinstance(error, click.MissingParameter):
        return "usage", f"{_name(error.param)} is missing"
    if isinstance(error, click.BadParameter):
        return "bad value", f"{_source(error.param, context) or _name(error.param)}: {error.message}"
    if isinstance(error, click.NoSuchOption):
        return "unknown option", settings.shown(error.option_name) + _like(error.possibilities)
    if isinstance(error, click.NoSuchCommand):
        otherwise = "; a question goes behind -p, in quotes" if context is None or context.parent is None else ""
        return "unknown command", settings.shown(error.command_name) + (_like(error.possibilities) or otherwise)
    if isinstance(error, click.BadOptionUsage):
        parameters = context.command.get_params(context) if context is not None else []
        is_flag = any(error.option_name in p.opts and getattr(p, "is_flag", False) for p in parameters)
        return "usage", f"{error.option_name} {'takes no' if is_flag else 'needs a'} value"
    return "usage", error.message


def _source(parameter: click.Parameter | None, context: click.Context | None) -> str | None:
    """The environment variable that a value is from."""
    if parameter is None or context is None or parameter.name is None or not isinstance(parameter.envvar, str):
        return None
    from_there = context.get_parameter_source(parameter.name) is ParameterSource.ENVIRONMENT
    return parameter.envvar if from_there else None


def _name(parameter: click.Parameter | None) -> str:
    if parameter is None:
        return "a value"
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.metavar or str(parameter.name).upper()


def _like(possibilities: list[str] | None) -> str:
    return f"; did you mean {' or '.join(possibilities)}?" if possibilities else ""
