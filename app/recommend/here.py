"""What is known on this machine of the models that could run on it: files, their headers, and what was measured."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from specee.app import machine as identity
from specee.app import model_catalogue
from specee.app.engine.measurements import Measurements
from specee.app.formatting import label
from specee.app.options import DEFAULT_CTX, DEFAULT_KV_TYPE
from specee.app.paths import Paths
from specee.app.recommend import this_machine
from specee.app.recommend.candidate import DraftHead, LocalModel
from specee.app.recommend.experience import Experience, Measured
from specee.app.recommend.facts import from_header
from specee.app.recommend.machine import Machine
from specee.app.recommend.recommendation import Recommendation, recommend
from specee.app.settings import KVType, Purpose
from specee.models import file_hash, gguf_header, heads, model_hash, model_kind, registry
from specee.models.errors import ModelError


def recommendations(
    folders: Paths,
    machine: Machine,
    *,
    purpose: Purpose = "chat",
    window: int = DEFAULT_CTX,
    kv_type: KVType = DEFAULT_KV_TYPE,
) -> tuple[Recommendation, ...]:
    """All models that have a name or are here, the one to take on this machine first. Asks nothing of a network."""
    here = local_models(folders)
    known = experience(folders, machine)
    found = draft_heads(folders, here)
    entries = registry.entries().values()
    return recommend(machine, entries, here, known, found, purpose=purpose, window=window, kv_type=kv_type)


def local_models(folders: Paths) -> dict[str, LocalModel]:
    """Models whose files are here, by the name that --model takes: those of the registry, others in the cache, copies
    that we made, and files that have run here. What is damaged or only drafts is none."""
    found: dict[str, LocalModel] = {}
    seen: set[Path] = set()

    files = (model_catalogue.of_file(path) for path in file_hash.known_files(folders.cache))
    for model in (*model_catalogue.models(folders), *files):
        if model is None or not model.here or (place := model.paths[0].resolve()) in seen:
            continue
        with suppress(ModelError):
            found[model.name] = local_model(model.paths[0], model.where, folders)
            seen.add(place)
    return found


def local_model(path: Path, where: str, folders: Paths) -> LocalModel:
    """What a file's header says. Raises ModelError for one that is damaged or cannot answer."""
    header = gguf_header.read_model(path)
    model_kind.check_answers(header)
    licence = header.values.get("general.license")
    return LocalModel(
        facts=from_header(header),
        where=where,
        sha256=model_hash.known(header.files, folders.cache),
        licence=label(licence) if isinstance(licence, str) else "",
    )


def estimate(path: Path, folders: Paths, window: int) -> Recommendation:
    """What to expect of one model here, as far as that is known without measuring. Raises ModelError."""
    machine = this_machine.remembered(folders)
    here = {path.stem: local_model(path, "file", folders)}
    (found,) = recommend(machine, (), here, experience(folders, machine), draft_heads(folders, here), window=window)
    return found


def experience(folders: Paths, machine: Machine) -> Experience:
    """What the engine has measured of models on this machine, with this library and as many threads."""
    if machine.build is None:
        return Experience()
    where = f"| {identity.identity()} | {machine.threads} threads | {machine.build}"
    stored = Measurements(folders.measurements)
    models = {
        _sha256(key): Measured(rate) for key, rate in stored.dense_rates.items() if key == f"{_sha256(key)} {where}"
    }
    for key, drafting in stored.drafting.items():
        if key == f"{_sha256(key)} {where}" and drafting.dense_rate is not None:
            one = drafting.seconds[1]
            rows = {n: seconds / one for n, seconds in drafting.seconds.items()}
            models[_sha256(key)] = Measured(drafting.dense_rate, drafting.speedup, rows)
    return Experience(models)


def _sha256(key: str) -> str:
    """Whose measurement it is."""
    return key.partition(" ")[0]


def draft_heads(folders: Paths, here: dict[str, LocalModel]) -> dict[str, DraftHead]:
    """Draft heads that are good enough to be used, by the SHA-256 of their model: shipped ones, and the user's own."""
    digests = {model.sha256 for model in here.values() if model.sha256} | set(heads.SHIPPED)
    found = {}
    for digest in digests:
        path = heads.find(folders.heads, digest)
        try:
            header = gguf_header.read_model(path) if path is not None else None
        except ModelError:
            continue
        if header is not None and heads.is_worth_using(header) and (rates := heads.acceptance(header)):
            found[digest] = DraftHead(header.file_bytes, tuple(rates))
    return found
