"""From what a user typed after --model to a file: a path, a name of the registry, or a repository on the hub."""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from pathlib import Path

from specee.models import local_file, model_folder, registry, source, split_file
from specee.models.errors import ModelError
from specee.models.source import Source

EMBEDDED = "smollm2-135m"
MOST_SHOWN = 120  # characters of a name that means nothing


@dataclass(frozen=True)
class Resolved:
    """A model file and the name to show for it. Of a split model `path` is the first file."""

    name: str
    path: Path
    embedded: bool = False


@dataclass(frozen=True)
class WantedModel:
    """What a name means, whether its file is here or not. It has a path, or a source, or is embedded."""

    name: str
    path: Path | None = None
    source: Source | None = None
    entry: registry.RegistryEntry | None = None

    @property
    def embedded(self) -> bool:
        return self.path is None and self.source is None


class NotHere(ModelError):  # noqa: N818 - `except NotHere` reads as what it is
    """A model that is known but not on this machine; `wanted.source` says where it is."""

    def __init__(self, wanted: WantedModel) -> None:
        super().__init__(
            "model not here", f"{wanted.name} is not on this machine yet; specee-chat models pull {wanted.name} gets it"
        )
        self.wanted = wanted


def resolve(model: str | None) -> Resolved:
    """The file that `model` means; None is the embedded model.

    Searches this machine only. Raises NotHere when the file must be pulled first, another ModelError when there is no
    such file or name.
    """
    wanted = interpret(model)
    if wanted.path is not None:
        return Resolved(wanted.name, wanted.path)
    if wanted.source is None:
        return _embedded()
    from specee.models import cache  # only here: a path must not wait for huggingface_hub

    found = cache.find(wanted.source)
    if found is None:
        raise NotHere(wanted)
    return Resolved(wanted.name, found[0])


def stable_name(model: str | None) -> str:
    """What means the same model from any folder: a name, or a whole path."""
    name = model or EMBEDDED
    try:
        wanted = interpret(name)
    except ModelError:  # a file that is gone is still the one in that folder
        return str(Path(name).absolute()) if name.lower().endswith(".gguf") and not name.startswith("~") else name
    return wanted.name if wanted.path is None else str(Path(name).expanduser().absolute())


def interpret(model: str | None) -> WantedModel:
    """What `model` means, in this order: a file or a folder with one, our names, a repository. Raises ModelError."""
    try:
        return _interpret(model or EMBEDDED)
    except OSError as error:  # a name too long for a file, a folder that may not be searched
        if error.errno == errno.ENAMETOOLONG:
            raise _unknown(str(model)) from error
        if isinstance(error, PermissionError):
            why = f"{model}: you may not look into its folder, or one above it (its owner can allow it: chmod +rx)"
            raise ModelError("model not readable", why) from error
        raise ModelError("model not found", f"{model}: {error.strerror or error}") from error


def _interpret(wanted: str) -> WantedModel:
    try:
        path = local_file.expand(wanted)
    except local_file.NoHomeError as error:
        raise ModelError(error.title, error.message) from None
    if path.suffix.lower() == ".gguf" and path.is_file():
        return _file(path)
    if (named := _named(wanted)) is not None:
        return named
    if path.is_file():
        return _file(path)
    if path.is_dir():
        return _file(model_folder.only_model(path))
    if path.exists():
        raise ModelError("not a model", f"{wanted} is no regular file; give the path of a .gguf file")
    if path.is_symlink():
        raise ModelError("model not found", f"{wanted} is a link to {path.readlink()}, which is not there")
    if (found := source.parse(wanted)) is not None:
        return WantedModel(wanted, source=found)
    raise _unknown(wanted)


def _file(path: Path) -> WantedModel:
    first = split_file.first_part(path.parent.resolve() / path.name)
    return WantedModel(source.name_of(first.name), first)


def _named(wanted: str) -> WantedModel | None:
    """A name of the registry, also with another quantization behind a colon: llama3.2-1b:q8_0."""
    if (entry := registry.lookup(wanted)) is not None:
        if entry.embedded:
            return WantedModel(entry.name, entry=entry)
        return WantedModel(
            entry.name, source=Source(entry.repo, entry.revision, entry.file, None, entry.sha256), entry=entry
        )
    base, colon, quant = wanted.rpartition(":")
    entry = registry.lookup(base) if colon and source.is_quant(quant) else None
    if entry is None or entry.embedded:
        return None
    name = f"{entry.name}:{quant.lower()}"
    return WantedModel(name, source=Source(entry.repo, entry.revision, quant=quant), entry=replace(entry, name=name))


def _unknown(wanted: str) -> ModelError:
    if len(wanted) > MOST_SHOWN:
        wanted = f"{wanted[:MOST_SHOWN]}..."
    if "://" in wanted:
        written = source.address_of(wanted)
        to_do = f"give {written}" if written is not None else "download the file, and give its path"
        return ModelError("model not found", f"{wanted} is an address, from which nothing is fetched; {to_do}")
    if wanted.startswith(source.HUB):
        return ModelError("model not found", f"{wanted} names no repository; one on the hub is written hf:owner/repo")
    if "/" in wanted or "\\" in wanted or wanted.lower().endswith(".gguf"):
        return ModelError(
            "model not found", f"there is no file {wanted}; a repository on the hub is written hf:owner/repo"
        )
    close = registry.nearest(wanted)
    hint = f"did you mean {' or '.join(close)}?" if close else "specee-chat models list shows the names"
    return ModelError("model not found", f"no model is called {wanted!r}, nor is there such a file; {hint}")


def _embedded() -> Resolved:
    from specee.models import embedded  # only here: resolving a path must not depend on what the build put in

    path = embedded.path()
    if path is None:
        raise ModelError(
            "no embedded model", "this build was made without it; give --model PATH, or reinstall with the model"
        )
    return Resolved(EMBEDDED, Path(path), embedded=True)
