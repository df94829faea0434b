"""Commands: their options may stand before them as well as after them, and --help lists them under headings.

What is given nearest to a command wins: after it, before it, config.toml. An option that means nothing to a command is
refused wherever it stands; a default in config.toml is not, since it is meant for the commands that know it.
"""

from __future__ import annotations

from typing import Any

import click

from specee.app import error_log, paths, settings
from specee.app.cli import config
from specee.app.cli.option import OWN, hidden
from specee.app.cli.shared_options import EVERYWHERE, HEADINGS

_OTHERS = "Others"


class _Shared(click.Command):
    """What commands and groups have in common.

    They take the options that every command takes, unlisted where they have no use for them.
    """

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        names = {parameter.name for parameter in self.params}
        self.params += hidden(option for option in EVERYWHERE if option.name not in names)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if parent is not None:
            extra.setdefault("default_map", _given_before(parent))
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if any(error.option_name in parameter.opts for parameter in ctx.find_root().command.params):
                raise _means_nothing(error.option_name, ctx) from None
            raise
        except click.BadOptionUsage as error:
            error.ctx = error.ctx or ctx
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:  # the data folder, which has the log, may be known in here only
            raise error_log.told(error, paths.find(ctx.params.get("data_dir")).logs) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)
        listed: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (OWN, *HEADINGS, _OTHERS)}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None:
                listed[getattr(parameter, "heading", _OTHERS)].append(record)
        for heading, records in listed.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class Command(_Shared):
    """A command that does something. Options before it that mean nothing to it are refused."""

    allow_extra_args = True  # refused here, in our words

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        left = super().parse_args(ctx, args)
        if left and not ctx.resilient_parsing:
            raise click.UsageError(f"{settings.shown(left[0])} is one word too many", ctx)
        return left

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        context = super().make_context(info_name, args, parent, **extra)
        if not context.resilient_parsing:
            config.check(context)
            _refuse_strangers(context)
        return context


class Group(_Shared, click.Group):
    """A command with commands of its own, listed in the order in which they were added."""

    command_class = Command

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, subcommand_metavar="[COMMAND]", **attributes)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


Group.group_class = Group


def run(command: click.Command, parent: click.Context) -> Any:
    """Runs `command` as if it had been typed after `parent`."""
    with command.make_context(command.name, [], parent=parent) as context:
        return command.invoke(context)


def _given_before(parent: click.Context) -> dict[str, Any]:
    """Defaults for a command: those of config.toml, and what was typed before the command."""
    return {
        **(parent.default_map or {}),
        **{str(one.name): parent.params[str(one.name)] for one in config.typed(parent)},
    }


def _refuse_strangers(context: click.Context) -> None:
    """Raises UsageError for an option before the command that means nothing to it."""
    known = {parameter.name for parameter in context.command.params}
    above = context.parent
    while above is not None:
        for parameter in config.typed(above):
            if isinstance(parameter, click.Option) and parameter.name not in known:
                raise _means_nothing(max(parameter.opts, key=len), context)
        above = above.parent


def _means_nothing(option: str, context: click.Context) -> click.UsageError:
    return click.UsageError(f"{option} means nothing to {context.command_path!r}", context)
