"""`specee-chat doctor`: is everything as it should be here?"""

from __future__ import annotations

from typing import Any

import click

from specee.app.cli import tables
from specee.app.cli.command import Command
from specee.app.cli.option import option
from specee.app.cli.output import print_json
from specee.app.cli.shared_options import EVERYWHERE, JSON, MACHINE, load_options
from specee.app.errors import FAILURE, OK

_COLUMNS = (tables.Column(width=len("NOT OK")), tables.Column(width=len("calibration")), tables.Column())


@click.command(cls=Command, params=[*MACHINE, *EVERYWHERE, JSON])
@option("--quick", is_flag=True, help="Do not load the model.")
def doctor(quick: bool, as_json: bool, **values: Any) -> int:
    """Check this machine, the files and the model.

    Each check is one line, OK or NOT OK.

    \b
    specee-chat doctor
    specee-chat doctor --model llama3.2-1b
    specee-chat doctor --quick
    """
    from dataclasses import asdict

    from specee.app.cli.doctor_checks import checks

    found = []
    for check in checks(load_options(values), quick=quick):
        found.append(check)
        if not as_json:  # each as soon as it is done: the last ones take seconds
            print(tables.table(_COLUMNS, [("OK" if check.ok else "NOT OK", check.name, check.detail)]))
    well = all(check.ok for check in found)
    if as_json:
        print_json({"ok": well, "checks": [asdict(check) for check in found]})
    return OK if well else FAILURE
