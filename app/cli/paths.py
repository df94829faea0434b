"""`specee-chat paths`: where files are kept."""

from __future__ import annotations

from typing import Any

import click

from specee.app import paths as folders
from specee.app.cli import tables
from specee.app.cli.command import Command
from specee.app.cli.output import show
from specee.app.cli.shared_options import DATA_DIR, JSON


@click.command("paths", cls=Command, params=[DATA_DIR, JSON])
def paths(as_json: bool, **values: Any) -> int:
    """Show where chats, calibrations, settings and logs are kept.

    \b
    specee-chat paths
    specee-chat paths --json | jq -r .history
    """
    found = folders.find(values["data_dir"]).as_dict()
    return show(found, as_json, lambda found: tables.pairs(found.items()))
