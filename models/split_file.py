"""Models in several files: `x-00001-of-00003.gguf` and those that belong to it, however people write that.

llama.cpp finds the parts by the name of the first one, so a path that leads to it by links (as in the hub's cache) is
kept as it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specee.models import cache, local_file, source
from specee.models.errors import ModelError

if TYPE_CHECKING:
    from specee.models.gguf_header import Header

NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
MAX_COUNT = (1 << 16) - 1  # llama.cpp reads 16 bits

MAX_LINKS = 40  # as the system follows


def first_part(path: Path) -> Path:
    """The first file of the model that `path` is a part of, if it is there; else `path`."""
    for place in _places(path):
        names = source.parts(place.name)
        if len(names) > 1 and all(place.with_name(name).is_file() for name in names):
            return place.with_name(names[0])
    first = path.with_name(source.parts(path.name)[0])
    return first if first.is_file() else path


def files(first: Path) -> tuple[Path, ...]:
    """The files of a model by the name of its first one, as far as they are there."""
    found = tuple(first.with_name(name) for name in source.parts(first.name))
    return found if all(path.is_file() for path in found) else (first,)


def _places(path: Path) -> Iterator[Path]:
    """The path, and what it is a link to, link by link: the parts may be beside any of these."""
    yield path
    for _ in range(MAX_LINKS):
        try:
            target = path.readlink()
            path = Path(os.path.normpath(path.parent.resolve() / target))
        except (OSError, RuntimeError):  # no link, or links in a circle
            return
        yield path


def number(values: dict[str, Any]) -> int:
    """Which part it is, from 0 on, as its header says; 0 also for a whole model."""
    found = values.get(NUMBER)
    return found if type(found) is int and _count(values) > 1 and 0 < found <= MAX_COUNT else 0


def _count(values: dict[str, Any]) -> int:
    found = values.get(COUNT)
    return found if type(found) is int and 0 < found <= MAX_COUNT else 1


def join(first: Header, read: Callable[[Path], Header]) -> Header:
    """The header of the whole model: the first part's values, the tensors of all. A model in one file as it is.

    Raises ModelError where a part is missing or belongs to another model.
    """
    count = _count(first.values)
    if count == 1:
        return first
    path = first.path
    _check_name(path, number(first.values), count)
    files = tuple(path.with_name(name) for name in source.parts(path.name))
    if missing := [file for file in files if not file.exists()]:
        raise _missing(path, missing, count)
    parts = [first]
    for at, file in enumerate(files[1:], 1):
        part = read(file)
        if (number(part.values), _count(part.values)) != (at, count):
            is_part = f"part {number(part.values) + 1} of {_count(part.values)}" if COUNT in part.values else "no part"
            raise _mixed(f"{file} is named part {at + 1} of {count}, and is {is_part}", path)
        parts.append(replace(part, tensors=tuple(replace(tensor, part=at) for tensor in part.tensors)))
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    _check_tensors(first, parts)
    return replace(first, tensors=tensors, file_bytes=sum(part.file_bytes for part in parts), files=files)


def _check_name(path: Path, at: int, count: int) -> None:
    names = source.parts(path.name)
    ending = _ending(1, count)
    in_row = len(names) == count
    if at > 0:
        first = path.with_name(names[0]) if in_row else f"the file whose name ends in {ending}"
        why = f"{path} is part {at + 1} of {count}, and {first}, the part that the model begins with, is not beside it"
        raise ModelError("model incomplete", f"{why}; {_how(path)}")
    if not in_row or path.name != names[0]:
        why = f"{path} is part 1 of {count}; the others are found by its name, which must end in {ending}"
        raise ModelError("model incomplete", f"{why}: give all parts the names that they had")


def _missing(path: Path, missing: list[Path], count: int) -> ModelError:
    names = ", ".join(file.name for file in missing[:4]) + (" and more" if len(missing) > 4 else "")
    verb = "is" if len(missing) == 1 else "are"
    why = f"{path} is part 1 of {count}, and {names} {verb} not beside it"
    return ModelError("model incomplete", f"{why}; {_how(path)}")


def _how(path: Path) -> str:
    found = cache.owner(path)
    if found is None:
        return "a model in parts needs all of them in one folder: get what is missing from where this one is from"
    return f"specee-chat models pull hf:{found.repo}:{source.parts(path.name)[0]} gets what is missing"


def for_llama_cpp(files: tuple[Path, ...], cache_dir: Path) -> Path:
    """The first file by a name that leads llama.cpp to all parts: its own, or a link in the cache's folder."""
    if len(files) == 1 or all(path.name.endswith(_ending(at, len(files))) for at, path in enumerate(files, 1)):
        return files[0]
    real = [path.absolute() for path in files]
    folder = cache_dir / "parts" / hashlib.sha256("\n".join(map(str, real)).encode("utf-8", "replace")).hexdigest()[:24]
    links = [folder / f"model{_ending(at, len(files))}" for at in range(1, len(files) + 1)]
    try:
        local_file.make_folder(folder)
        for link, path in zip(links, real, strict=True):
            if not (link.is_symlink() and link.readlink() == path):
                link.unlink(missing_ok=True)
                link.symlink_to(path)
    except OSError as error:
        why = f"llama.cpp finds the parts of {files[0]} by their names, and no links to them can be made in {folder}"
        to_do = f"rename them, so that they end in {_ending(1, len(files))} and so on"
        raise ModelError("model not readable", f"{why} ({error.strerror or error}); {to_do}") from error
    return links[0]


def _ending(at: int, count: int) -> str:
    return f"-{at:05}-of-{count:05}.gguf"


def _check_tensors(first: Header, parts: list[Header]) -> None:
    seen: dict[str, Path] = {}
    for part in parts:
        for tensor in part.tensors:
            if tensor.name in seen:
                raise _mixed(f"{seen[tensor.name]} and {part.path} both have the tensor {tensor.name!r}", first.path)
        seen.update({tensor.name: part.path for tensor in part.tensors})
    wanted = first.values.get(TENSORS)
    if type(wanted) is int and wanted != len(seen):
        raise _mixed(f"the parts of {first.path} have {len(seen)} tensors together, where {wanted} belong", first.path)


def _mixed(why: str, path: Path) -> ModelError:
    found = cache.owner(path)
    again = "get all parts again, from one place"
    if found is not None:
        name = f"hf:{found.repo}:{source.parts(path.name)[0]}"
        again = f"specee-chat models rm {name}, then specee-chat models pull {name}, gets them again"
    return ModelError("parts of different models", f"{why}; {again}")
