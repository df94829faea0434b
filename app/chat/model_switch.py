"""Another model goes on with a chat; where it cannot be loaded, the one before does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from specee.app.chat import memory_check
from specee.app.chat.session import Session
from specee.app.engine.client import Event
from specee.app.engine.protocol import Progress
from specee.app.errors import AppError
from specee.models.resolve import NotHere

IsClosing = Callable[[], bool]


def switch(
    session: Session, name: str, *, agreed: bool = False, is_closing: IsClosing = lambda: False
) -> Iterator[Event]:
    """Loads another model. `agreed`: the user knows that it does not fit into memory; else DoesNotFitError is raised
    for one that does not. Raises errors with a title."""
    former = session.info.name if session.info is not None else session.model
    yield Progress(f"looking at {name}")
    try:
        if not agreed:
            memory_check.check(name, session)
        session.use_model(name)
    except NotHere as error:
        raise AppError(error.title, f"/pull {name} downloads it") from None
    yield from open_or_go_back(session, former, is_closing=is_closing)


def open_or_go_back(session: Session, former: str, *, is_closing: IsClosing = lambda: False) -> Iterator[Event]:
    """Loads what the session was told to; where that cannot be, `former` goes on and the error says so."""
    try:
        yield from session.open()
    except AppError as error:
        if is_closing():
            raise
        with suppress(AppError):
            yield from session.open()  # it has gone back
        if session.info is None:
            raise
        why = f"{error.message.rstrip('.')}; {former} goes on answering"
        raise AppError(error.title, why, error.exit_code) from error
