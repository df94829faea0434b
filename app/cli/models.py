"""`specee-chat models`: what is here, what it is made of, and how it comes and goes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from specee.app.cli.shared_options import to_json
from specee.app.errors import OK, USAGE, AppError

Command = TypeVar("Command", bound=Callable[..., Any])


def _common(command: Command) -> Command:
    """Options of every command here; those before the command hold too."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--data-dir", metavar="DIR", help="Keep all files in this folder."),
        click.option("--offline", is_flag=True, default=None, help="Never use a network."),
        click.option("--yes", is_flag=True, default=None, help="Do not ask."),
    ):
        command = option(command)
    return command


def _settings(context: click.Context, **given: Any) -> dict[str, Any]:
    return {**(context.obj or {}), **{name: value for name, value in given.items() if value is not None}}


@click.group()
def models() -> None:
    """Models: fetch them, look inside, delete them."""


@models.command("list")
@_common
@click.pass_context
def models_list(context: click.Context, /, as_json: bool, **given: Any) -> int:
    """All models that have a name, and all that are in the shared cache."""
    from specee.app import paths
    from specee.app.cli import model_list

    rows = model_list.rows(paths.find(_settings(context, **given).get("data_dir")))
    if as_json:
        click.echo(to_json([row.as_dict() for row in rows]))
    else:
        click.echo(model_list.table(rows))
    return OK


@models.command("pull")
@click.argument("name")
@_common
@click.pass_context
def models_pull(context: click.Context, /, name: str, as_json: bool, **given: Any) -> int:
    """Fetch a model; interrupted, it goes on the next time."""
    from specee.app.cli import fetch_model
    from specee.models import download, gguf_header, resolve

    settings = _settings(context, **given)
    plan = download.prepare(name, offline=bool(settings.get("offline")))
    path = fetch_model.fetch(plan, settings.get("data_dir")) if plan is not None else resolve.resolve(name).path
    header = gguf_header.read_model(path)
    if as_json:
        sha256 = [file.sha256 for file in plan.files] if plan is not None else []
        click.echo(
            to_json(
                {"name": name, "path": str(path), "bytes": plan.total if plan else header.file_bytes, "sha256": sha256}
            )
        )
    else:
        click.echo(path)
    return OK


@models.command("path")
@click.argument("name", required=False)
@_common
@click.pass_context
def models_path(context: click.Context, /, name: str | None, as_json: bool, **given: Any) -> int:
    """The file that a name means; of a split model the first."""
    from specee.models.resolve import resolve

    found = resolve(name or _settings(context).get("model"))
    if as_json:
        click.echo(to_json({"name": found.name, "path": str(found.path)}))
    else:
        click.echo(found.path)
    return OK


@models.command("show")
@click.argument("name", required=False)
@click.option("--ctx", type=click.IntRange(16), metavar="N", help="Window for the estimate of memory.")
@_common
@click.pass_context
def models_show(context: click.Context, /, name: str | None, as_json: bool, **given: Any) -> int:
    """What a model is made of, what it needs, and what it can do here."""
    from specee.app import paths
    from specee.app.cli import model_details

    settings = _settings(context, **given)
    facts = model_details.facts(
        name or settings.get("model"), paths.find(settings.get("data_dir")), settings.get("ctx")
    )
    if as_json:
        click.echo(to_json(facts))
    else:
        click.echo(model_details.lines(facts))
    return OK


@models.command("rm")
@click.argument("name")
@_common
@click.pass_context
def models_rm(context: click.Context, /, name: str, as_json: bool, **given: Any) -> int:
    """Delete a model from the shared cache; of one that is not complete, what has come so far."""
    from specee.app.cli.fetch_model import size
    from specee.models import cache, resolve

    wanted = resolve.interpret(name)
    if wanted.source is None:
        what = "it comes with specee-chat" if wanted.embedded else "it is a file of yours; delete it yourself"
        raise AppError("not ours to delete", f"{name}: {what}", USAGE)
    doomed = cache.find(wanted.source) or cache.unfinished(wanted.source.repo)
    if not doomed:
        raise resolve.NotHere(wanted)
    n_bytes = sum(path.stat().st_size for path in doomed)
    if not _settings(context, **given).get("yes"):
        if not sys.stdin.isatty():
            raise AppError("nobody to ask", "other programs use this cache too; give --yes to delete", USAGE)
        if not click.confirm(
            f"Delete {wanted.name} ({size(n_bytes)}, in {cache.folder(wanted.source.repo)})?", err=True
        ):
            return OK
    freed = cache.remove(wanted.source.repo, doomed)
    if as_json:
        click.echo(to_json({"name": wanted.name, "bytes": freed}))
    else:
        click.echo(f"deleted {wanted.name}, {size(freed)}")
    return OK


@models.command("optimize")
@click.argument("name", required=False)
@click.option("--output", metavar="FILE", help="Write the copy there (default: the data folder).")
@click.option("--force", is_flag=True, help="Keep the copy even if its perplexity is more than 1% worse.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads.")
@_common
@click.pass_context
def models_optimize(
    context: click.Context, /, name: str | None, output: str | None, force: bool, as_json: bool, **given: Any
) -> int:
    """Write a copy with weights that CPUs multiply in batches, and measure whether it is worth it."""
    from specee.app.cli import fetch_model
    from specee.app.engine.optimization_task import summary
    from specee.app.engine.tasks import run_task
    from specee.app.options import LoadOptions

    settings = _settings(context, **given)
    model, data_dir = name or settings.get("model"), settings.get("data_dir")
    fetch_model.ensure(model, offline=bool(settings.get("offline")), yes=bool(settings.get("yes")), data_dir=data_dir)
    load = LoadOptions(
        model=model, threads=settings.get("threads"), gpu_layers=settings.get("gpu_layers") or 0, data_dir=data_dir
    )
    result = run_task("optimize", load, {"output": output, "force": force})
    if as_json:
        click.echo(to_json(result))
    else:
        click.echo(summary(result))
    return OK
