"""Bounds for chat templates, which are code of the model's file and may compute without end, and take all memory.

One operation of theirs makes a value of bounded size (what it would be is known before). What many of them take
together, and for how long, is looked at while they run.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame

from specee.app import memory

MAX_SECONDS = 5.0  # of one rendering
MAX_SIZE = 1 << 24  # characters or items of a value besides what the chat has, bits of a power
MAX_ITEMS = 1 << 19  # of lists in lists, where they become text
MAX_BYTES = 1 << 29  # that one rendering may take, besides what the chat takes
BYTES_EACH = 16  # of a character of the chat: some copies of four bytes each
LOOK_SECONDS = 0.02
LOOK_BYTES = 1 << 26

# what lists and objects go through without becoming text
_HARMLESS = frozenset(
    [
        "length",
        "count",
        "first",
        "last",
        "list",
        "map",
        "select",
        "reject",
        "selectattr",
        "rejectattr",
        "items",
        "default",
        "d",
        "dictsort",
        "sort",
        "unique",
        "groupby",
        "reverse",
        "random",
        "min",
        "max",
        "sum",
        "attr",
        "batch",
        "slice",
    ]
)
# in formats: a width, and one that is given
_WIDTH = re.compile(r"(?<=[%:.<>^=+ #0-])\d+")
_WIDTH_GIVEN = re.compile(r"%[^%a-zA-Z]*\*|:[^{}]*\{")


class TooMuchError(Exception):
    """A template computes more than any chat needs."""


class _Size:
    """Of the values of the rendering under way, at most; and what was made since its memory was looked at."""

    most = MAX_SIZE
    made = 0  # bytes
    look: Callable[[], object] = staticmethod(lambda: None)  # raises TooMuchError


def bounded(environment: Any, source: str) -> Any:
    """`source` as a template in an environment of jinja2's sandbox, which gets bounds."""
    binop, call = environment.call_binop, environment.call

    def call_binop(context: Any, operator: str, left: Any, right: Any) -> Any:
        if _size(operator, left, right) > _Size.most:
            raise TooMuchError(f"it computes {_shown(left)} {operator} {_shown(right)}")
        return _made(binop(context, operator, left, right))

    def call_any(context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        if isinstance(owner, (str, bytes)):  # a macro, and our own functions, are bounded by what they do
            _check(function.__name__, owner, args, kwargs)
        return _made(call(context, function, *args, **kwargs))

    environment.intercepted_binops = frozenset(("+", "*", "**", "%"))
    environment.call_binop, environment.call = call_binop, call_any
    environment.concat = environment.joined = _joined
    environment.finalize = _written
    environment.code_generator_class = _Code
    environment.filters = {name: _checked(name, made) for name, made in environment.filters.items()}
    environment.globals.pop("lipsum", None)
    with deadline(len(source)):  # jinja2 computes what is constant now
        return environment.from_string(source)


class _Code(CodeGenerator):
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - jinja2's name
        """`~`, which the sandbox does not look at."""
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


def _joined(parts: Iterable[Any]) -> str:
    texts: list[str] = []
    size = 0
    for part in parts:
        texts.append(str(_written(part)))
        size += len(texts[-1])
        if size > _Size.most:
            raise TooMuchError(f"it writes more than {_Size.most} characters")
    return "".join(texts)


def _written(value: Any) -> Any:
    """A value that becomes text."""
    if not isinstance(value, (str, int, float)) and _weight(value) > _Size.most:
        raise TooMuchError(f"it writes a {type(value).__name__} of more than {_Size.most} characters")
    return value


def _made(value: Any) -> Any:
    """What an operation gave."""
    if _is_long(value):
        if isinstance(value, (str, bytes)) and len(value) > _Size.most:
            raise TooMuchError(f"it makes a text of more than {_Size.most} characters")
        _Size.made += sys.getsizeof(value)
        if _Size.made > LOOK_BYTES:  # a thread that looks now and then may come too late where cores are busy
            _Size.made = 0
            _Size.look()
    return value


def _checked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0  # its context comes first

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        _check(name, args[skipped] if len(args) > skipped else None, args[skipped + 1 :], kwargs)
        return _made(function(*args, **kwargs))

    return filtered


def _check(name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raises TooMuchError for a method of a text, or a filter, that would make too much."""
    given = (*args, *kwargs.values())
    if _product(name, value, given) > _Size.most:
        raise TooMuchError(f"it computes {name} of {_shown(value)}")
    if name not in _HARMLESS:
        for part in (value, *given):
            _written(part)


def _product(name: str, value: Any, given: tuple[Any, ...]) -> int:
    """Characters or items that it adds to those of the value."""
    width = max((abs(part) for part in given if isinstance(part, int)), default=0)
    texts = [part for part in given if isinstance(part, str)]
    if name in ("center", "ljust", "rjust", "zfill", "batch", "slice"):
        return width
    if name == "tojson":
        return min(_weight(value), MAX_ITEMS) * (width if width > 1 else 1)
    if name == "join":
        between, items = (value, given[0]) if isinstance(value, str) and given else ("".join(texts), value)
        return len(between) * len(items) if isinstance(items, (str, list, tuple, dict)) else 0
    if not isinstance(value, str):
        return 0
    if name == "replace":
        return value.count(texts[0]) * len(texts[1]) if len(texts) > 1 else 0
    if name == "expandtabs":
        return value.count("\t") * width
    if name in ("indent", "wordwrap"):
        lines = (len(value) if name == "wordwrap" else value.count("\n")) + 1
        return lines * max(width if name == "indent" else 0, *map(len, texts), 1)
    if name in ("format", "format_map"):
        widths = [int(digits[:9]) for digits in _WIDTH.findall(value)]
        if _WIDTH_GIVEN.search(value) is not None:
            widths.append(width)
        return (max(widths, default=0) + max(map(len, texts), default=0)) * (value.count("%") + value.count("{"))
    return 0


def _size(operator: str, left: Any, right: Any) -> float:
    if operator == "**":
        return left.bit_length() * right if isinstance(left, int) and isinstance(right, int) else 0
    if operator == "+":
        return len(left) + len(right) if _is_long(left) and _is_long(right) else 0
    if operator == "%":
        if not isinstance(left, (str, bytes)):
            return 0
        _written(right)
        return _product("format", str(left), right if isinstance(right, tuple) else (right,))
    for value, times in ((left, right), (right, left)):
        if _is_long(value) and isinstance(times, int):
            return len(value) * times
    return left.bit_length() + right.bit_length() if isinstance(left, int) and isinstance(right, int) else 0


def _is_long(value: Any) -> bool:
    return isinstance(value, (str, bytes, list, tuple))


def _weight(value: Any) -> int:
    """Characters of a value as text, roughly; more than any limit where lists in lists have too many items."""
    size, items, rest = 0, 0, [value]
    while rest:
        part = rest.pop()
        if isinstance(part, Mapping):
            rest.extend(part.keys())
            rest.extend(part.values())
        elif isinstance(part, (list, tuple, set, frozenset)):
            rest.extend(part)
        size += len(part) if isinstance(part, (str, bytes)) else 8
        items += 1
        if items + len(rest) > MAX_ITEMS or size > _Size.most:
            return _Size.most + 1
    return size


def _shown(value: Any) -> str:
    return repr(value)[:20] if isinstance(value, (int, float)) and abs(value) < 10**18 else type(value).__name__


@contextmanager
def deadline(n_characters: int = 0) -> Iterator[None]:
    """What is computed within may take MAX_SECONDS and MAX_BYTES. Raises TooMuchError, in whatever thread.

    `n_characters`: of the chat.
    """
    _Size.most = MAX_SIZE + 4 * n_characters
    watch = _Watch(MAX_BYTES + BYTES_EACH * n_characters)
    _Size.made, _Size.look = 0, watch.check_memory
    try:
        yield
    except TooMuchError as error:
        raise TooMuchError(watch.reason or str(error)) from None
    finally:
        watch.end()


class _Watch:
    """A thread that raises TooMuchError in the one that it was made in."""

    def __init__(self, most: int) -> None:
        self.reason: str | None = None
        self._most = most
        self._thread = threading.get_ident()
        self._ends, self._first = time.monotonic() + MAX_SECONDS, memory.used_by_this_process()
        self._ended, self._raising = threading.Event(), threading.Lock()
        threading.Thread(target=self._look, daemon=True).start()

    def end(self) -> None:
        while not self._ended.is_set():
            with suppress(TooMuchError):  # raised here, at the last moment
                self._ended.set()
        with self._raising:
            self._raise(None)

    def check_memory(self) -> None:
        if self._takes_too_much():
            raise TooMuchError(f"it takes more than {self._most >> 20} MiB of memory")

    def _takes_too_much(self) -> bool:
        now = memory.used_by_this_process()
        return now is not None and self._first is not None and now - self._first > self._most

    def _look(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            if time.monotonic() > self._ends:
                self.reason = f"it computes for more than {MAX_SECONDS:g} seconds"
            elif self._takes_too_much():
                self.reason = f"it takes more than {self._most >> 20} MiB of memory"
            with self._raising:
                if self.reason is not None and not self._ended.is_set():
                    self._raise(TooMuchError)

    def _raise(self, error: type[TooMuchError] | None) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._thread), ctypes.py_object() if error is None else ctypes.py_object(error)
        )
