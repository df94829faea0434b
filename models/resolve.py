"""From what a user typed after --model to a file: a path, or a name that we know."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from specee.models.errors import ModelError

EMBEDDED = "smollm2-135m"
ALIASES = {"default": EMBEDDED, "smollm2-135m-instruct": EMBEDDED}


@dataclass(frozen=True)
class Resolved:
    """A model file and the name to show for it."""

    name: str
    path: Path
    embedded: bool = False


def known_names() -> tuple[str, ...]:
    """Names that resolve without a path."""
    return (EMBEDDED, *ALIASES)


def resolve(model: str | None) -> Resolved:
    """The file that `model` means; None is the embedded model.

    Raises ModelError when there is no such file or name.
    """
    wanted = model or EMBEDDED
    if ALIASES.get(wanted.lower(), wanted.lower()) == EMBEDDED:
        return _embedded()
    path = Path(wanted).expanduser()
    if path.is_dir():
        return _only_gguf_in(path)
    if path.is_file():
        return Resolved(path.stem, path.resolve())
    if _looks_like_a_path(wanted):
        raise ModelError("model not found", f"there is no file {wanted}; give the path of a .gguf file")
    close = difflib.get_close_matches(wanted.lower(), known_names(), n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known names: {', '.join(known_names())}"
    raise ModelError("model not found", f"no model is called {wanted!r}, nor is there such a file; {hint}")


def _looks_like_a_path(text: str) -> bool:
    return "/" in text or "\\" in text or text.lower().endswith(".gguf")


def _embedded() -> Resolved:
    from specee.models import embedded  # only here: resolving a path must not depend on what the build put in

    path = embedded.path()
    if path is None:
        raise ModelError(
            "no embedded model", "this build was made without it; give --model PATH, or reinstall with the model"
        )
    return Resolved(EMBEDDED, Path(path), embedded=True)


def _only_gguf_in(folder: Path) -> Resolved:
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return Resolved(files[0].stem, files[0].resolve())
    found = "no .gguf file" if not files else f"{len(files)} .gguf files"
    raise ModelError("model not found", f"{folder} is a folder with {found}; give the path of one file")
