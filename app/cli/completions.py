"""`specee-chat completions`: commands and options that the shell completes."""

from __future__ import annotations

from typing import Any, Literal

import click

from specee.app.cli.command import Command
from specee.app.cli.option import Setting
from specee.app.errors import OK

PROGRAM, VARIABLE = "specee-chat", "_SPECEE_CHAT_COMPLETE"


@click.command(cls=Command)
@click.argument("shell", type=Setting(Literal["bash", "zsh", "fish"]))
@click.pass_context
def completions(context: click.Context, /, shell: str, **values: Any) -> int:
    """Print what makes a shell complete our commands with Tab.

    \b
    bash  eval "$(specee-chat completions bash)"          in ~/.bashrc
    zsh   eval "$(specee-chat completions zsh)"           in ~/.zshrc
    fish  specee-chat completions fish | source           in config.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())
    return OK
