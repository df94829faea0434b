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
    THINK,
    THINK_TOKENS,
    chat_options,
    load_options,
    max_tokens,
    sampling,
)

LOCALHOST = "localhost"  # 127.0.0.1 and ::1
DEFAULT_SLOTS = 4  # as many rows cost little more than one


@click.command(
    cls=Command,
    params=[
        *(max_tokens(opts.ChatOptions.max_tokens), THINK, THINK_TOKENS, *ENGINE, POLICY, *DRAFTING),
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
@option(
    "--host",
    type=Setting(settings.FileName),
    metavar="ADDRESS",
    default=LOCALHOST,
    help="Where to listen. An address that other machines reach needs a key.",
    otherwise="this machine only",
)
@option(
    "--api-key",
    type=Setting(settings.ApiKey),
    metavar="KEY",
    envvar="SPECEE_API_KEY",
    help="Requests must have this key. The environment variable SPECEE_API_KEY does the same, and hides it better.",
)
@option(
    "--cors",
    type=Setting(settings.Origin),
    metavar="ORIGIN",
    multiple=True,
    help="A web page that may use the server, such as https://example.com, or '*' for all; may be given several times.",
)
def serve(port: int, parallel: int | None, host: str, api_key: str | None, cors: tuple[str, ...], **values: Any) -> int:
    """Let other programs talk to the model, as they do to OpenAI's.

    Serves /v1/chat/completions, /v1/models and /health, several requests at once; /openapi.json describes them. What a
    request does not say is as the options here say.

    \b
    specee-chat serve --model llama3.2-1b --port 8350
    curl http://127.0.0.1:8350/v1/chat/completions -H "Content-Type: application/json" \\
         -d '{"messages": [{"role": "user", "content": "Hi"}]}'
    """
    from specee.app.serve.server import Access
    from specee.app.serve.server import serve as run

    load = replace(load_options(values), n_slots=parallel or DEFAULT_SLOTS, chats=False)
    return run(load, chat_options(values), Access(port, host, api_key, cors))
