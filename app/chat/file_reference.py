"""What an @ in a prompt means: a file, or nothing (a mention, a decorator, a package).

The rule: an @ at the beginning of a word names the file whose name follows, in quotes or up to the next space (`\\ ` is
a space in the name). If nothing is there under that name, it is an error when the name can only be that of a file (it
is in quotes, begins as a path, or ends as files do), and otherwise plain text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from specee.app.errors import USAGE, AppError

SHOWN = 200  # characters of a name in an error
LONGEST = 4096  # characters of a path, on most systems
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uff00-\uff9f"  # scripts without spaces
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»", "„": "“", "「": "」"}  # noqa: RUF001
_UNCLOSED = '"“„«'
_QUOTED = "|".join(rf"{begin}(?P<q{n}>[^{end}\n]+){end}(?!\w)" for n, (begin, end) in enumerate(_QUOTES.items()))
_REFERENCE = re.compile(rf"(?<![^\s(\[{{<,;{_UNSPACED}])@(?:{_QUOTED}|(?P<word>(?:\\[ ]|(?![,;]@)\S)+))")
_OPENING, _CLOSING = "([{<\"'`“‘«„「", ".,;:!?)]}>\"'`”’»。，、；：！？）」…"  # noqa: RUF001
_SUFFIXES = (
    "7z|adoc|avi|bash|bat|bib|bmp|bz2|c|cc|cfg|conf|cpp|cs|css|csv|db|diff|dll|docx?|dylib|eml|epub|exe|gguf|gif|go"
    "|gradle|gz|h|heic|hpp|html?|ics|ini|ipynb|jar|java|jpe?g|jsx?|json5?|jsonl|kt|lock|log|lua|m4a|mdx?|mkv|mov|mp[34]"
    "|odp|ods|odt|org|parquet|patch|pdf|php|pl|png|pptx?|proto|ps1|pyi?|rar|rb|rs|rst|rtf|safetensors|scala|sh|sql"
    "|sqlite3?|svelte|svg|swift|tar|te?x|tgz|tiff?|toml|tsx?|tsv|txt|vue|wav|webp|xlsx?|xml|xz|ya?ml|zip|zst"
)
"""Of files. Other words with a dot are decorators and names of people."""
_FILE_END = re.compile(rf"\.(?:{_SUFFIXES})(?![a-z0-9_/\\]|[.-][a-z0-9])", re.IGNORECASE)
_CALL = re.compile(r"[\w.]+[({]")  # or an entry of BibTeX
_HANDLE = re.compile(r"[\w.-]+[@:][\w.-]+\.(?:cc|md|org|pl|py|rs|sh)")  # of a person: name@server, name:server
_DECORATED = re.compile(
    r"[ \t]*(?:#.*)?\n\s*(?:@[\w.]+(?:\(.*\))?[ \t]*\n\s*)*(?:async\s+def|class|def)\s+\w+\s*[(\[:]"
)
_VARIABLE = re.compile(r"(?:\$\{?(\w+)\}?|%(\w+)%)([/\\]?)")
_AS_IT_STANDS = "with a space after the @ it is sent as it stands"


def files_named(text: str) -> Iterator[Path]:
    """The files that a prompt names, in their order. What is there may still be no file that can be read.

    Raises AppError for a name that is surely meant as a file's, of a file that is not there.
    """
    at = 0
    while (match := _REFERENCE.search(text, at)) is not None:
        at = match.end()
        word = match["word"]
        if word is None:
            name = next(found for group, found in match.groupdict().items() if group != "word" and found is not None)
            path = _there(name)
            if path is None:
                raise _not_there(name, name)
        elif not word.strip(_OPENING + _CLOSING):
            continue
        elif (found := _first_there(word)) is not None:
            path, at = found[0], match.start() + 1 + found[1]
        elif _surely_a_file(word, text[match.end("word") :]):
            raise _not_there(_shortest(word), word)
        else:
            continue
        yield path


def _first_there(word: str) -> tuple[Path, int] | None:
    """The longest beginning of a word that is the name of what is there, and its length: behind a name may stand what
    belongs to the sentence."""
    for begin, end in _spans(word):
        name = word[begin:end]
        for candidate in dict.fromkeys((name, re.sub(r"\\([^\w\\/])", r"\1", name))):
            if candidate and (path := _there(candidate)) is not None:
                return path, end
    return None


def _spans(word: str) -> list[tuple[int, int]]:
    """Where in a word a name may stand, the longest first."""
    bare = word.rstrip(_CLOSING)
    inner = len(word) - len(word.lstrip(_OPENING))
    ends = [*(found.end() for found in _FILE_END.finditer(word[:LONGEST]))][::-1]
    spans = [(0, len(word)), (0, len(bare)), (inner, len(bare)), *((inner, end) for end in ends)]
    return list(dict.fromkeys(span for span in spans if span[0] < span[1]))


def _shortest(word: str) -> str:
    """A name as an error says it."""
    begin, end = _spans(word)[-1]
    return word[begin:end]


def _there(name: str) -> Path | None:
    """What has this name, be it a link to nowhere; None where nothing has."""
    try:
        path = Path(name).expanduser()
    except (RuntimeError, ValueError):  # the home of nobody
        return None
    try:
        path.lstat()
    except PermissionError:
        return path  # reading it says so
    except (OSError, ValueError):  # not there, too long, with a zero in it
        return None
    return path


def _surely_a_file(word: str, after: str) -> bool:
    """Whether a word behind an @, which names nothing that is there, can be nothing else."""
    if _CALL.match(word) or _HANDLE.fullmatch(word.rstrip(_CLOSING)):
        return False
    if re.fullmatch(r"[\w.]+", word) and _DECORATED.match(after):
        return False
    if _FILE_END.search(word) or word[0] in _UNCLOSED or "://" in word or re.match(r"\.{0,2}[/\\]|\.\w", word):
        return True
    if (variable := _VARIABLE.match(word)) is not None:
        return bool(variable[3]) or (variable[1] or variable[2]) in os.environ
    folder, slash, rest = word.replace("\\ ", " ").partition("/")
    if "\\ " in word or (slash and (not rest or folder.startswith("~"))):
        return True
    return bool(slash) and _there(folder) is not None


def _not_there(name: str, word: str) -> AppError:
    """What is said of a name that nothing has: why, if that shows."""
    hint = _AS_IT_STANDS
    if _VARIABLE.search(name):
        hint = f"variables in it are not replaced, so write the path itself; {hint}"
    elif "://" in name:
        hint = f"it is an address, and only files of this machine can be sent; {hint}"
    elif any(sign in name for sign in "*?[{"):
        hint = f"patterns are not replaced, so name each file; {hint}"
    elif word[:1] in _UNCLOSED:
        hint = f"its quotes are not closed; {hint}"
    elif name.startswith("~") and (user := name[1:].partition("/")[0]) and not _there(f"~{user}"):
        hint = f"there is no user {user[:SHOWN]}; {hint}"
    shown = name if len(name) <= SHOWN else f"{name[:SHOWN]}…"
    return AppError("cannot attach", f"there is no file {shown}; {hint}", USAGE)
