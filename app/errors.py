"""One error root for everything a user sees: what happened, why, what to do, and the exit code."""

from __future__ import annotations

from pydantic_core import ValidationError

OK, FAILURE, USAGE, MODEL_MISSING, DOWNLOAD_FAILED, PROMPT_TOO_LONG, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

INTERNAL = "internal error"
"""The title of what we did not foresee."""


class AppError(Exception):
    """`title` says what happened in a few words, `message` why and what to do."""

    def __init__(self, title: str, message: str, exit_code: int = FAILURE) -> None:
        super().__init__(f"{title}: {message}")
        self.title = title
        self.message = message
        self.exit_code = exit_code

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
        return AppError(title, message, int(getattr(error, "exit_code", FAILURE)))
    if isinstance(error, ValidationError):  # a value that no entrance let through, or should not have
        first = error.errors()[0]
        return AppError("bad value", f"{'.'.join(map(str, first['loc']))}: {first['msg']}", USAGE)
    if isinstance(error, MemoryError):
        return AppError("out of memory", "try a smaller --ctx or a smaller model")
    if isinstance(error, OSError) and str(error):
        where = f" ({error.filename})" if error.filename else ""
        return AppError("the system refused", f"{error.strerror or error}{where}")
    return AppError(INTERNAL, f"{type(error).__name__}: {error}; the log has the details")
