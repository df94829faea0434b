"""The cache that huggingface_hub and all its users share: what is in it, how a file is added and removed.

    models--owner--repo/refs/main                      the commit that `main` was when it was last asked for
    models--owner--repo/snapshots/<commit>/<file>      a link to
    models--owner--repo/blobs/<sha256>                 the file

While a file arrives it is `blobs/<sha256>.part`: on the same disk, so that the last step is a rename, and gone with the
repository's folder whoever deletes that. The layout is read here without huggingface_hub's own functions, which take
half a second to import and do not look beyond the newest commit; it has been the same since 2022.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from specee.models import hub_names, hub_settings, local_file
from specee.models import source as sources
from specee.models.errors import ModelError
from specee.models.source import Source

MAX_COMMIT = 1024  # bytes of a file that names one


def root() -> Path:
    """The cache's folder: HF_HUB_CACHE, or `hub` in HF_HOME."""
    return Path(hub_settings.constants().HF_HUB_CACHE)


def folder(repo: str) -> Path:
    """A repository's part of the cache."""
    return root() / f"models--{repo.replace('/', '--')}"


def blob(repo: str, sha256: str) -> Path:
    """Where the file with this hash is once it is complete."""
    return folder(repo) / "blobs" / sha256


def part(repo: str, sha256: str) -> Path:
    """Where it is while it arrives."""
    return folder(repo) / "blobs" / f"{sha256}.part"


def lock(repo: str, sha256: str) -> Path:
    """The lock of this file; huggingface_hub takes the same one."""
    return root() / ".locks" / folder(repo).name / f"{sha256}.lock"


def pointer(repo: str, commit: str, file: str) -> Path:
    """The file under its name in the repository."""
    return folder(repo) / "snapshots" / commit / file


def find(source: Source) -> tuple[Path, ...] | None:
    """The model's files, when all of them are here: of the wanted revision, else of the newest one that is complete."""
    for snapshot in _snapshots(source.repo, source.revision):
        names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*.gguf") if path.is_file()]
        with suppress(ModelError):  # this snapshot has another quantization, or not all parts
            return tuple(snapshot / name for name in sources.choose(source, names))
    return None


def _snapshots(repo: str, revision: str) -> list[Path]:
    here = folder(repo) / "snapshots"
    try:
        commit = local_file.read(folder(repo) / "refs" / revision, MAX_COMMIT).decode().strip()
    except (OSError, ValueError):  # or no UTF-8
        commit = revision
    try:
        found = sorted(here.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []
    return sorted(found, key=lambda path: path.name != commit)


def link(repo: str, revision: str, commit: str, file: str, sha256: str) -> Path:
    """Makes the blob known under its name, as huggingface_hub does, and returns that path. The lock must be held."""
    path = pointer(repo, commit, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    target = blob(repo, sha256)
    if not path.exists():
        path.unlink(missing_ok=True)  # a link that leads nowhere
        try:
            path.symlink_to(os.path.relpath(target, path.parent))
        except OSError:  # no links on this system: the file itself takes the place, as with huggingface_hub
            target.replace(path)
    if revision != commit:
        with suppress(OSError):  # without it the newest snapshot is taken
            _write(folder(repo) / "refs" / revision, commit)
    return path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        new.write_text(text, "utf-8")
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class CachedModel:
    """A model in the cache: its repository, its first file's name there, and all its files."""

    repo: str
    file: str
    paths: tuple[Path, ...]


def models() -> Iterator[CachedModel]:
    """All complete GGUF models in the cache, whoever put them there; each file once."""
    seen: set[Path] = set()
    try:
        repo_folders = sorted(root().glob("models--*--*"))
    except OSError:  # what is no folder has none
        return
    for repo_folder in repo_folders:
        repo = repo_folder.name.removeprefix("models--").replace("--", "/", 1)
        if not hub_names.is_repo(repo):
            continue
        for snapshot in _snapshots(repo, "main"):
            for path in sorted(snapshot.rglob("*.gguf")):
                name = path.relative_to(snapshot).as_posix()
                names = sources.parts(name)
                if name == names[0] and path.is_file() and path.resolve() not in seen:
                    paths = tuple(snapshot / other for other in names)
                    if all(other.is_file() for other in paths):
                        seen.add(path.resolve())
                        yield CachedModel(repo, name, paths)


@dataclass(frozen=True)
class CachedFile:
    """A file of a repository; its content arrived with this hash."""

    repo: str
    file: str
    sha256: str


def owner(path: Path) -> CachedFile | None:
    """What a file is of, if it is in the cache under its name in the repository."""
    if "snapshots" not in path.parts:  # without loading huggingface_hub
        return None
    try:
        real = path.parent.resolve() / path.name  # the cache's folder may be a link
        repo_folder, _, _, *parts = real.relative_to(root().resolve()).parts
        target = path.resolve()
    except (OSError, ValueError, ModelError):  # it is elsewhere, or the cache is nowhere
        return None
    repo = repo_folder.removeprefix("models--").replace("--", "/", 1)
    if not hub_names.is_repo(repo) or not parts or target.parent.name != "blobs":
        return None
    return CachedFile(repo, "/".join(parts), target.name)


def unfinished(repo: str) -> tuple[Path, ...]:
    """What has come of models that are not complete: pieces of files, and parts of which others are missing."""
    pieces = sorted((folder(repo) / "blobs").glob("*.part"))
    names = sorted(path for path in (folder(repo) / "snapshots").rglob("*.gguf") if path.is_file())
    complete = {path.resolve() for path in names if _are_here(path)}
    return (*pieces, *(path for path in names if path.resolve() not in complete))


def _are_here(path: Path) -> bool:
    """The file with all that belong to it."""
    return all(path.with_name(name).is_file() for name in sources.parts(path.name))


def remove(repo: str, paths: tuple[Path, ...]) -> int:
    """Deletes these files of a repository under all their names, and returns the bytes freed."""
    targets = {path.resolve() for path in paths}
    freed = sum(path.stat().st_size for path in targets)
    for name in (folder(repo) / "snapshots").rglob("*"):
        if name.is_symlink() and name.resolve() in targets:
            name.unlink()
    for path in targets:
        path.unlink(missing_ok=True)
    if not unfinished(repo) and not any(path.is_file() for path in (folder(repo) / "snapshots").rglob("*")):
        shutil.rmtree(folder(repo), ignore_errors=True)
    return freed
