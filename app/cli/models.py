"""`specee-chat models`: what is here, what it is made of, and how it comes and goes."""

from __future__ import annotations

import sys
from typing import Any

import click

from specee.app import output_file, paths, settings
from specee.app.cli.command import Group, run
from specee.app.cli.confirm import confirm
from specee.app.cli.option import Setting, hidden, option
from specee.app.cli.output import show
from specee.app.cli.shared_options import (
    CTX,
    DATA_DIR,
    EVERYWHERE,
    JSON,
    KV_TYPE,
    OFFLINE,
    PLACEMENT,
    PLACES,
    THREADS,
    WHICH_MODEL,
    check_places,
    load_options,
)
from specee.app.errors import OK, AppError

_HERE: list[click.Parameter] = [DATA_DIR, JSON]
_NAMED = hidden([WHICH_MODEL])
"""In place of NAME, so that it may stand before the command as with all others."""


@click.group(
    cls=Group, params=[*_HERE, *_NAMED, *hidden([CTX, KV_TYPE, THREADS, *PLACEMENT])], invoke_without_command=True
)
@click.pass_context
def models(context: click.Context, /, **values: Any) -> int:
    """List, fetch, inspect and delete models.

    \b
    specee-chat models                       names, and which of them are here
    specee-chat models recommend             which one to take on this machine
    specee-chat models pull llama3.2-1b      fetch one
    specee-chat models show llama3.2-1b      what it is made of and needs
    specee-chat --model llama3.2-1b          chat with it
    """
    return OK if context.invoked_subcommand is not None else int(run(list_models, context))


@models.command("list", params=list(_HERE))
def list_models(as_json: bool, **values: Any) -> int:
    """List the models that have a name, and all others that are here.

    HERE says where a model is: it is embedded (comes with specee-chat), in the cache (fetched), a copy (made by 'models
    optimize'), damaged or here only partly. Tokens of a calibrated model can skip layers.

    \b
    specee-chat models list --json
    """
    from specee.app.cli import model_list

    rows = model_list.rows(paths.find(values["data_dir"]))
    if as_json:
        return show([row.as_dict() for row in rows], as_json, str)
    return show(rows, as_json, model_list.text)


@models.command("recommend", params=[CTX, KV_TYPE, THREADS, *_HERE])
@option(
    "--for",
    "purpose",
    type=Setting(settings.Purpose),
    metavar="NAME",
    otherwise="chat",
    help="What it is for: chat, code, small or reasoning.",
)
@option("--all", "every", is_flag=True, help="Show all models that fit.")
def recommend(
    purpose: settings.Purpose | None,
    every: bool,
    ctx: int | None,
    kv_type: settings.KVType | None,
    threads: int | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Say which model to take on this machine.

    For each model: the memory that it needs, and how many tokens a second to expect, also of models that are not here.
    How fast this machine reads weights is measured once, in half a second, and kept. DENSE is without drafts, MEASURED
    what the model reached here. No network is used.

    \b
    specee-chat models recommend
    specee-chat models recommend --for code
    """
    from specee.app.cli import model_recommendations
    from specee.app.cli.progress_line import ProgressLine
    from specee.app.options import DEFAULT_CTX, DEFAULT_KV_TYPE
    from specee.app.recommend import here, this_machine

    folders = paths.find(values["data_dir"])
    with ProgressLine() as line:
        if sys.stderr.isatty():
            line.show("measuring this machine")
        machine = this_machine.look(folders, threads)
    wanted: settings.Purpose = purpose or "chat"
    kept = kv_type or DEFAULT_KV_TYPE
    found = here.recommendations(folders, machine, purpose=wanted, window=ctx or DEFAULT_CTX, kv_type=kept)
    if as_json:
        return show(model_recommendations.as_dict(machine, found), as_json, str)
    print(model_recommendations.text(machine, found, wanted, every))
    return OK


@models.command("pull", params=[OFFLINE, *_HERE])
@click.argument("name", type=Setting(settings.FileName))
def pull(name: str, offline: bool | None, as_json: bool, **values: Any) -> int:
    """Fetch a model; interrupted, it goes on the next time.

    NAME is one that 'specee-chat models' lists, also with another quantization behind a colon, or a repository on
    Hugging Face. What has come is checked against its SHA-256, and put where other programs that fetch from there find
    it too.

    \b
    specee-chat models pull llama3.2-1b
    specee-chat models pull llama3.2-1b:q8_0
    specee-chat models pull hf:bartowski/SmolLM2-360M-Instruct-GGUF
    """
    from specee.app.cli import fetch_model
    from specee.models import download, draft_model, gguf_header, resolve

    plan = download.prepare(name, offline=bool(offline))
    path = fetch_model.fetch(plan, values["data_dir"]) if plan is not None else resolve.resolve(name).path
    header = gguf_header.read_model(path)
    result = {
        "name": name,
        "path": str(path),
        "bytes": plan.total if plan else header.file_bytes,
        "sha256": [file.sha256 for file in plan.files] if plan is not None else [],
    }
    pair = draft_model.paired(name)
    if pair is not None and pair.path is None:
        print(f"{pair.name} can draft for it: specee-chat models pull {pair.name}", file=sys.stderr)
    return show(result, as_json, lambda result: str(result["path"]))


@models.command("path", params=[*_NAMED, *_HERE])
@click.argument("name", required=False, type=Setting(settings.FileName))
def path(name: str | None, model: str | None, as_json: bool, **values: Any) -> int:
    """Print where a model's file is.

    Of a model in several files it is the first. Without NAME: the model that comes with specee-chat.

    \b
    specee-chat models path llama3.2-1b
    """
    from specee.models import split_file
    from specee.models.resolve import resolve

    found = resolve(name or model)
    files = [str(path) for path in split_file.files(found.path)]
    return show({"name": found.name, "path": files[0], "files": files}, as_json, lambda _: files[0])


@models.command("show", params=[*_NAMED, CTX, KV_TYPE, *PLACES, *_HERE])
@click.argument("name", required=False, type=Setting(settings.FileName))
def show_model(
    name: str | None,
    model: str | None,
    ctx: int | None,
    kv_type: settings.KVType | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Show what a model is made of and what it needs.

    Layers, types of the weights, memory it needs and memory that is free, whether its tokens can skip layers, and what
    its calibration found. Without NAME: the model that comes with specee-chat.

    \b
    specee-chat models show llama3.2-1b
    specee-chat models show llama3.2-1b --ctx 32768      memory for a longer window
    """
    from specee.app.cli import model_details
    from specee.app.options import DEFAULT_KV_TYPE, LoadOptions
    from specee.native.errors import DeviceError

    given = {str(option.name): values[str(option.name)] for option in PLACES}
    load = LoadOptions(n_ctx=ctx, kv_type=kv_type or DEFAULT_KV_TYPE, **given)
    check_places(load)
    try:
        facts = model_details.facts(name or model, paths.find(values["data_dir"]), load)
    except DeviceError as error:
        raise AppError(error.title, error.message) from error  # there is no --cpu-fallback here
    return show(facts, as_json, model_details.text)


@models.command("rm", params=list(_HERE))
@click.argument("name", type=Setting(settings.FileName))
@option("--yes", is_flag=True, default=None, help="Do not ask.")
def rm(name: str, yes: bool | None, as_json: bool, **values: Any) -> int:
    """Delete a fetched model.

    Of one that is here only partly, it deletes what has come so far.

    \b
    specee-chat models rm llama3.2-1b
    """
    from specee.app import removal
    from specee.app.formatting import size

    doomed = removal.find(name)
    confirm(doomed.question, yes)
    freed = doomed.run()
    return show({"name": doomed.name, "bytes": freed}, as_json, lambda _: f"deleted {doomed.name}, {size(freed)}")


@models.command("optimize", params=[*_NAMED, THREADS, *PLACEMENT, *EVERYWHERE, JSON])
@click.argument("name", required=False, type=Setting(settings.FileName))
@option("--output", metavar="FILE", help="Write the copy to FILE, which must be new.", otherwise="the data folder")
@option(
    "--force", is_flag=True, help="Keep the copy even if its text is clearly worse (perplexity up by more than 1%)."
)
def optimize(name: str | None, output: str | None, force: bool, as_json: bool, **values: Any) -> int:
    """Make a copy with weights in Q8_0, and measure both.

    Weights in Q4_1, and an LM head in Q6_K, become Q8_0: larger, and quicker to multiply for several tokens at once.
    The model itself stays as it is. What is measured: reading prompts, decoding, perplexity.

    \b
    specee-chat models optimize smollm2-135m
    """
    from specee.app.cli.optimization_summary import text
    from specee.app.cli.task import run_task
    from specee.app.engine.protocol import Optimize

    if output is not None:
        output_file.check_new(output)
    load = load_options({**values, "model": name or values["model"]})
    return show(run_task(Optimize(load, output, force)), as_json, text)
