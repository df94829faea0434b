"""`models show`: what a model is made of, what it needs here, and what it can do."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from specee.app import memory
from specee.app.cli import tables, weight_types
from specee.app.formatting import label, size
from specee.app.options import DEFAULT_CTX, DEFAULT_KV_TYPE, LoadOptions
from specee.app.paths import Paths

NO_PROBLEM: dict[str, Any] = {"library_problem": None}
NO_HEAD = dict.fromkeys(("head", "head_acceptance", "head_used", "head_is_for_others"))


def facts(name: str | None, folders: Paths, load: LoadOptions | None = None) -> dict[str, Any]:
    """Everything as plain values; sizes in bytes. Raises errors with a title and a message."""
    from specee.models import (
        draft_model,
        gguf_header,
        head_fit,
        heads,
        kv_cache,
        model_hash,
        model_kind,
        model_structure,
        resolve,
    )

    load = load or LoadOptions()
    n_ctx, kv_type = load.n_ctx, load.kv_type
    found = resolve.resolve(name)
    header = gguf_header.read_model(found.path)
    drafts_only = model_kind.head_kind(header)
    if drafts_only is None:
        model_kind.check_answers(header)
    read = model_structure.read(header, kv_type)
    pair = draft_model.paired(name)
    entry = resolve.interpret(name).entry
    digest = model_hash.of_model(header, folders.cache)
    window = min(n_ctx or DEFAULT_CTX, read.context or n_ctx or DEFAULT_CTX)
    needed, free = read.memory(window), memory.free_ram()
    return {
        **asdict(read),
        "name": found.name,
        "title": read.name,
        "path": str(found.path),
        "files": [str(path) for path in header.files],
        "sha256": digest,
        "licence": read.licence or (entry.licence if entry is not None else None),
        "notes": entry.notes if entry is not None else None,
        "window": window,
        "kv_type": kv_type,
        "kv_type_possible": kv_cache.can_have(header, kv_type),
        "memory_bytes": needed,
        "free_ram_bytes": free,
        "free_vram_bytes": memory.free_vram(),
        "fits": None if free is None else needed < free,
        "places": _places(load, header, read, window),
        **_level(read, header.files, folders),
        **_speed(found.path, folders, window, drafts_only),
        "slow_weights": None if (slow := weight_types.slow(header)) is None else [asdict(one) for one in slow],
        "weight_types": weight_types.text(slow),
        "drafts_only": drafts_only,
        "drafts_unusable": head_fit.impossible(header, drafts_only) if drafts_only is not None else None,
        "reads_layers": head_fit.target_layers(header),
        "own_draft_layers": draft_model.own_draft_layers(header),
        "drafter": pair.name if pair is not None else None,
        "drafter_path": str(pair.path) if pair is not None and pair.path is not None else None,
        "trained_for": heads.trained_for(header),
        **_template(None if drafts_only is not None else header),
        **_head(heads.find(folders.heads, digest, header), digest),
        "head_unusable": heads.unusable_own(folders.heads, digest, header),
        **_calibration(folders, digest, found.embedded),
    }


def _places(load: LoadOptions, header: Any, read: Any, window: int) -> str | None:
    """What would run where, in words; None where nothing but the CPU was asked for."""
    from specee.app.engine import placement
    from specee.models import layer_bytes

    if not load.has_devices:
        return None
    placed = placement.choose(load, placement.needs(read, layer_bytes.read(header), window, load.n_slots))
    return placed.words(read.layers)


def _level(read: Any, files: tuple[Path, ...], folders: Paths) -> dict[str, Any]:
    """Whether tokens skip layers, and may be drafted: as the last start found out, else by the architecture."""
    from specee.models import split_file
    from specee.native import abi, library, proof
    from specee.native.errors import NativeError

    try:
        found = proof.read(proof.last_file(split_file.for_llama_cpp(files, folders.cache)))
    except (NativeError, OSError):
        found = None
    if found is not None:
        limit = found.limit if found.level < abi.EXITS else None
        return {"dense_only": limit, "dense_only_is_proven": True, "drafts": found.level >= abi.DRAFTS, **NO_PROBLEM}
    unproven = {"dense_only": None, "dense_only_is_proven": False, "drafts": None}
    try:
        return {**unproven, "dense_only": library.architecture_limit(read.arch), **NO_PROBLEM}
    except NativeError as error:
        return {**unproven, "library_problem": str(error)}


def _template(header: Any) -> dict[str, Any]:
    """How chats are written for the model, and what its chat template has a place for; None: it does not answer."""
    from specee.app.engine.model_template import open_model_template

    if header is None:
        return dict.fromkeys(("template", "folds_system", "takes_tools"))
    found = open_model_template(header)
    return {
        "template": found.note or found.origin,
        "folds_system": found.template.form.folds_system,
        "takes_tools": found.template.takes_tools,
    }


def _speed(path: Path, folders: Paths, window: int, drafts_only: str | None) -> dict[str, float | None]:
    """Tokens a second to expect, where this machine was measured, and those that were reached; without drafts."""
    from specee.app.recommend import here

    found = here.estimate(path, folders, window) if drafts_only is None else None
    return {
        "expected_tokens_per_second": found.expected if found is not None else None,
        "measured_tokens_per_second": found.measured if found is not None else None,
    }


def _head(path: Path | None, digest: str) -> dict[str, Any]:
    """The model's own draft head, and how often its drafts were right when it was made: the first of a step, the second
    after a right first one, and so on."""
    from specee.models import gguf_header, heads

    if path is None:
        return NO_HEAD
    header = gguf_header.read_model(path)
    return {
        "head": str(path),
        "head_acceptance": heads.acceptance(header),
        "head_used": heads.is_worth_using(header),
        "head_is_for_others": heads.is_for_others(header, digest),
    }


def _calibration(folders: Paths, digest: str, embedded: bool) -> dict[str, Any]:
    from specee.models import calibrations
    from specee.predictors.calibration import calibration_file
    from specee.predictors.errors import CalibrationFileError

    path = calibrations.find(folders.calibrations, digest, embedded=embedded)
    if path is None:
        return {"calibration": None, "calibration_metrics": None, "calibration_unusable": None}
    try:
        metrics = calibration_file.read(path).metrics
    except CalibrationFileError as error:  # for example of another version
        return {"calibration": None, "calibration_metrics": None, "calibration_unusable": error.message}
    return {"calibration": str(path), "calibration_metrics": metrics, "calibration_unusable": None}


def text(facts: dict[str, Any]) -> str:
    """As text."""
    return tables.pairs(rows(facts).items())


def rows(facts: dict[str, Any]) -> dict[str, str]:
    """As words, by what they are about."""
    tied = "tied to the embedding" if facts["head_tied"] else "of its own"
    free = "unknown" if facts["free_ram_bytes"] is None else size(facts["free_ram_bytes"])
    if facts["free_vram_bytes"] is not None:
        free += f", {size(facts['free_vram_bytes'])} on the GPU"
    fits = {None: "", True: "", False: ": TOO LITTLE"}[facts["fits"]]
    words = {
        "name": facts["name"],
        "title": label(facts["title"]),
        "path": facts["path"] + (f" (the first of {len(facts['files'])} parts)" if len(facts["files"]) > 1 else ""),
        "sha256": facts["sha256"],
        "licence": label(facts["licence"] or "not stated"),
        "size": f"{size(facts['file_bytes'])}, {facts['parameters'] / 1e6:.0f}M parameters",
        "architecture": facts["arch"],
        "layers": f"{facts['layers']} of width {facts['width']}"
        + (f", feed-forward {facts['feed_forward']}" if facts["feed_forward"] else ""),
        "attention": f"{facts['heads']:g} heads of {facts['head_dim']}, keys and values of {facts['heads_kv']:g}"
        if facts["heads"]
        else "none: each layer keeps a running state",
        "vocabulary": facts["vocabulary"],
        "trained window": facts["context"],
        **{f"  {group}": _mix(types) for group, types in facts["groups"].items()},
        "LM head": f"{facts['head_type']}, {tied}, {facts['head_layers']:.1f} layers' worth",
        "weight types": facts["weight_types"],
        "memory": f"{size(facts['memory_bytes'])} for weights and {facts['window']} tokens{_kept_as(facts)}; "
        f"free now: {free}{fits}",
        **({} if facts["places"] is None else {"runs on": facts["places"]}),
        **_chat(facts),
        **_speed_words(facts),
        "skips layers": _skips_layers(facts),
        "draft head": _own_head(facts),
        "drafter": _drafter(facts),
        "calibration": facts["calibration"] or _uncalibrated(facts),
        **_rules(facts["calibration_metrics"] or {}),
    }
    return {name: str(value) for name, value in words.items()}


def _kept_as(facts: dict[str, Any]) -> str:
    if facts["kv_type"] == DEFAULT_KV_TYPE:
        return ""
    return f" in {facts['kv_type']}{'' if facts['kv_type_possible'] else ', which this model cannot have'}"


def _chat(facts: dict[str, Any]) -> dict[str, str]:
    if facts["template"] is None:
        return {}
    system = "no place: it is sent with the question that follows it" if facts["folds_system"] else "yes"
    return {
        "chat template": facts["template"],
        "system message": system,
        "tools": "yes" if facts["takes_tools"] else "no",
    }


def _speed_words(facts: dict[str, Any]) -> dict[str, str]:
    expected, measured = facts["expected_tokens_per_second"], facts["measured_tokens_per_second"]
    parts = [f"{measured:.1f} tokens/s measured"] if measured is not None else []
    parts += [f"about {expected:.1f} tokens/s expected"] if expected is not None and measured is None else []
    return {"speed": f"{parts[0]}, without drafts"} if parts else {}


def _skips_layers(facts: dict[str, Any]) -> str:
    if facts["dense_only"]:
        drafts = "; its tokens can be drafted" if facts["drafts"] else ""
        return f"no: {facts['dense_only']}{drafts}"
    if facts["library_problem"] is not None:
        return f"unknown: {facts['library_problem']}"
    return "yes" if facts["dense_only_is_proven"] else "probably; found out at its first start"


def _own_head(facts: dict[str, Any]) -> str:
    unusable = facts["head_unusable"]
    if facts["head"] is None and unusable is not None:
        return f"unusable: {unusable}"
    if facts["head"] is None:
        return "none" if facts["dense_only"] or facts["drafts_only"] else "none: specee-chat train makes one"
    rates = ", ".join(f"{rate:.0%}" for rate in facts["head_acceptance"])
    others = "; trained for another model file" if facts["head_is_for_others"] else ""
    unused = "" if facts["head_used"] else "; too few to be used: train it with more --tokens"
    right = f"; of its drafts, one after the other, {rates} were right{unused}" if rates else ""
    instead = f"; the one that was trained here is unusable: {unusable}" if unusable is not None else ""
    return f"{facts['head']}{right}{others}{instead}"


def _drafter(facts: dict[str, Any]) -> str:
    """What drafts for the model, and whether it is here."""
    if facts["drafts_only"]:
        layers = ", ".join(map(str, facts["reads_layers"]))
        trained = f", the file with SHA-256 {facts['trained_for']}" if facts["trained_for"] else ""
        if facts["drafts_unusable"]:
            return f"the file itself: {facts['drafts_unusable']}"
        return (
            f"the file itself is {facts['drafts_only']}; it reads layers {layers} of its model{trained}: --drafter FILE"
        )
    own = facts["own_draft_layers"]
    note = f"; the model's own {own} layers for that (multi-token prediction) are not used" if own else ""
    if facts["dense_only"] and not facts["drafts"]:
        return f"none: its tokens cannot be drafted{note}"
    if facts["drafter"] is None:
        return f"none is known; --drafter takes a small model with the same vocabulary{note}"
    if facts["drafter_path"] is None:
        return f"{facts['drafter']}, not here: specee-chat models pull {facts['drafter']}{note}"
    return f"{facts['drafter']}, at {facts['drafter_path']}{note}"


def _uncalibrated(facts: dict[str, Any]) -> str:
    if facts["calibration_unusable"]:
        return f"unusable: {facts['calibration_unusable']}"
    return "none: its tokens cannot skip layers" if facts["dense_only"] else "none: run specee-chat calibrate"


def _rules(metrics: dict[str, Any]) -> dict[str, str]:
    """What each exit rule reached on text that calibration held back."""
    found = {}
    for key, name in (("calibrated", "predictor"), ("margin", "margin")):
        if rule := metrics.get(key):
            found[f"  {name}"] = (
                f"above {rule['threshold']:.3g}: mean exit layer {rule['mean_exit_layer']:.1f}, "
                f"agreement {rule['agreement']:.1%}, perplexity x {rule['ppl_ratio']:.3f}"
            )
    return found


def _mix(types: dict[str, int]) -> str:
    return ", ".join(f"{name} {size(n_bytes)}" for name, n_bytes in types.items())
