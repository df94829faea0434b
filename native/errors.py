"""The error root of specee.native."""

from __future__ import annotations

WRONG_USE, UNUSABLE_MODEL = 2, 3
"""Exit codes of specee-chat: for what the user gave, and for a model that is missing or unusable."""


class NativeError(Exception):
    """Something that the user can act on: `title` names what failed, `message` why and what to do, one line each."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(f"{title}: {message}")
        self.title = title
        self.message = message

    def __reduce__(self) -> tuple[type[NativeError], tuple[str, ...]]:
        return type(self), (self.title, self.message)


class UnusableModelError(NativeError):
    """The model's file is the cause: llama.cpp refuses it, or what it computes is no number."""

    exit_code = UNUSABLE_MODEL


class WrongUseError(NativeError):
    """What the user gave cannot be meant."""

    exit_code = WRONG_USE


class DeviceError(NativeError):
    """A device other than the CPU fails: without it the others, or the CPU alone, can compute.

    `worker`: the endpoint of the worker that fails, as the user wrote it; None: a device of this machine.
    """

    of_device = True

    def __init__(self, title: str, message: str, worker: str | None = None) -> None:
        super().__init__(title, message)
        self.worker = worker

    def __reduce__(self) -> tuple[type[NativeError], tuple[str, ...]]:
        return type(self), (self.title, self.message, *((self.worker,) if self.worker is not None else ()))
