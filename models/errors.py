"""What can be wrong with a model file, in words that a user can act on."""

from __future__ import annotations


class ModelError(Exception):
    """A model that cannot be found or read.

    `title` says what, `message` says why and what to do; `exit_code` is the command line's (3: not found or unusable).
    """

    def __init__(self, title: str, message: str, exit_code: int = 3) -> None:
        super().__init__(f"{title}: {message}")
        self.title = title
        self.message = message
        self.exit_code = exit_code
