"""The error root of specee.native."""

from __future__ import annotations


class NativeError(Exception):
    """Something that the user can act on: `title` names what failed, `message` why and what to do, one line each."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(f"{title}: {message}")
        self.title = title
        self.message = message

    def __reduce__(self) -> tuple[type[NativeError], tuple[str, str]]:
        return type(self), (self.title, self.message)
