"""The error root of specee.native."""

from __future__ import annotations

UNUSABLE_MODEL = 3
"""The exit code of specee-chat for a model that is missing or unusable."""


class NativeError(Exception):
    """Something that the user can act on: `title` names what failed, `message` why and what to do, one line each."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(f"{title}: {message}")
        self.title = title
        self.message = message

    def __reduce__(self) -> tuple[type[NativeError], tuple[str, str]]:
        return type(self), (self.title, self.message)


class UnusableModelError(NativeError):
    """The model's file is the cause: llama.cpp refuses it, or what it computes is no number."""

    exit_code = UNUSABLE_MODEL


class DeviceError(NativeError):
    """A device other than the CPU fails: without it the CPU can compute alone."""

    of_device = True
