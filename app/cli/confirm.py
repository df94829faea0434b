"""Asking before something is deleted or fetched."""

from __future__ import annotations

import sys

import click

from specee.app.errors import USAGE, AppError


def can_ask() -> bool:
    """Whether somebody reads the question and can answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, yes: bool | None) -> None:
    """Goes on if the answer is yes, or `yes`. Raises AppError if it is no, or if nobody can be asked."""
    if yes:
        return
    if not can_ask():
        raise AppError("nobody to ask", f"give --yes to agree to this: {question}", USAGE)
    if not click.confirm(question, err=True):
        raise AppError("nothing was done", "the answer was no")
