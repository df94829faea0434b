"""One error root for everything a user sees: what happened, why, what to do, and the exit code."""

from __future__ import annotations

import errno

from pydantic_core import ValidationError

OK, FAILURE, USAGE, MODEL_MISSING, DOWNLOAD_FAILED, PROMPT_TOO_LONG, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

SHOWN_CHARACTERS = 40  # of a value that is refused

INTERNAL = "internal error"
"""The title of what we did not foresee."""


class AppError(Exception):
    """`title` says what happened in a few words, `message` why and what to do.

    `of_device`: a GPU or a worker failed, without which the CPU could go on; `worker`: which one, as the user wrote it.
    """

    def __init__(
        self,
        title: str,
        message: str,
        exit_code: int = FAILURE,
        *,
        of_device: bool = False,
        worker: str | None = None,
    ) -> None:
        super().__init__(f"{title}: {message}")
        self.title = title
        self.message = message
        self.exit_code = exit_code
        self.of_device, self.worker = of_device, worker

    @property
    def line(self) -> str:
        """The error as one line."""
        return " ".join(f"{self.title}: {self.message}".split())


def as_app_error(error: BaseException) -> AppError:
    """Any exception as an AppError; errors of the other packages carry their own title and message."""
    if isinstance(error, AppError):
        return error
    title, message = getattr(error, "title", None), getattr(error, "message", None)
    if isinstance(title, str) and isinstance(message, str):
        of_device, worker = bool(getattr(error, "of_device", False)), getattr(error, "worker", None)
        exit_code = int(getattr(error, "exit_code", FAILURE))
        return AppError(title, message, exit_code, of_device=of_device, worker=worker)
    if isinstance(error, ValidationError):  # a value that no entrance let through, or should not have
        return AppError("bad value", _refusal(error), USAGE)
    if _is_of_memory(error):
        return AppError("out of memory", "try a smaller --ctx or a smaller model, or close other programs")
    if isinstance(error, OSError) and str(error):
        where = f" ({error.filename})" if error.filename else ""
        return AppError("the system refused", f"{error.strerror or error}{where}")
    return AppError(INTERNAL, f"{type(error).__name__}: {error}")


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, KeyboardInterrupt):  # nobody pressed it: OpenBLAS raises the signal where it gets no threads
        return True
    what = str(error)
    no_thread = isinstance(error, RuntimeError) and what == "can't start new thread"
    no_exception = isinstance(error, SystemError) and "exception set" in what  # C code had no memory for one
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or no_thread
        or no_exception
        or (isinstance(error, ImportError) and "map segment" in what)
    )


def _refusal(error: ValidationError) -> str:
    """What pydantic refused, in our words."""
    from specee.app.settings import shown  # which needs this module

    first = error.errors(include_url=False)[0]
    name, given = ".".join(map(str, first["loc"])) or "a value", shown(first["input"])
    bounds = {**first.get("ctx", {})}
    for bound, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
        if bound in bounds:
            return f"{name}: {given} is refused; it must be {words} {bounds[bound]}"
    return f"{name}: {given} cannot be"
