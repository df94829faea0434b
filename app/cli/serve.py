"""`specee-chat serve`: the model for other programs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from specee.app import options as opts
from specee.app import settings
from specee.app.cli.command import Command
from specee.app.cli.option import Setting, option
from specee.app.cli.shared_options import (
    DRAFTING,
    ENGINE,
    EVERYWHERE,
    EXITS,
    POLICY,
    chat_options,
    load_options,
    max_tokens,
    sampling,
)
from specee.app.errors import OK

DEFAULT_SLOTS = 4  # as many rows cost little more than one


@click.command(
    cls=Command,
    params=[
        *(max_tokens(opts.ChatOptions.max_tokens), *ENGINE, POLICY, *DRAFTING),
        *(*EXITS, *sampling(opts.Sampling()), *EVERYWHERE),
    ],
)
@option("--port", type=Setting(settings.Port), default=8350, metavar="N", help="0 takes a free one.", otherwise=8350)
@option(
    "--parallel",
    type=Setting(settings.Slots),
    metavar="N",
    help="How many requests are answered at once, each with a context window of --ctx tokens; more wait.",
    otherwise=DEFAULT_SLOTS,
)
def serve(port: int, parallel: int | None, **values: Any) -> int:
    """Let other programs talk to the model, as they do to OpenAI's.

    Serves /v1/chat/completions and /v1/models, to programs on this machine only, several at once. What a request does
    not say is as the options here say.

    \b
    specee-chat serve --model llama3.2-1b --port 8350
    curl http://127.0.0.1:8350/v1/chat/completions -H "Content-Type: application/json" \\
         -d '{"messages": [{"role": "user", "content": "Hi"}]}'
    """
    from specee.app.serve.server import serve as run

    load = replace(load_options(values), n_slots=parallel or DEFAULT_SLOTS)
    run(load, chat_options(values), port)
    return OK
