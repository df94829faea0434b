"""What can be wrong with a model, so that a user can act on it."""

from __future__ import annotations

from pathlib import Path

MISSING, DOWNLOAD_FAILED, USAGE = 3, 4, 2


class ModelError(Exception):
    """A model that cannot be found, fetched or read.

    `title` says what, `message` says why and what to do; `exit_code` is the command line's.
    """

    def __init__(self, title: str, message: str, exit_code: int = MISSING) -> None:
        super().__init__(f"{title}: {message}")
        self.title = title
        self.message = message
        self.exit_code = exit_code


class NotAChatModelError(ModelError):
    """A sound file that holds something else: `kind`, in words."""

    def __init__(self, path: Path, kind: str, to_do: str, title: str = "not a chat model") -> None:
        super().__init__(title, f"{path} is {kind}; {to_do}")
        self.kind = kind


class DownloadError(ModelError):
    """A transfer that did not come to its end."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(title, message, DOWNLOAD_FAILED)
