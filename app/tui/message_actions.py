"""What the user does with one message of the chat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specee.app.chat.history.records import Turn
from specee.app.errors import AppError
from specee.app.tui import message_header as header
from specee.app.tui.question import Question

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp


def act(app: ChatApp, action: str, turn: Turn) -> None:
    """Does this with a message. Raises AppError when it cannot be done now."""
    if action == header.COPY.name:
        grows = app.busy and turn.role == "assistant" and turn.id == app.session.branch[-1].id
        app.copy(app.event_display.text if grows else turn.content)
        return
    app.require_idle()
    if action == header.EDIT.name:
        app.controller.edit(turn)
    elif action == header.RETRY.name:
        app.controller.answer_again(turn)
    elif action == header.BRANCH.name:
        app.controller.branch_after(turn)
    elif action == header.CONTINUE.name:
        app.controller.continue_answer()
    elif action == header.DELETE.name:
        _ask_to_delete(app, turn)
    else:
        _switch(app, turn, 1 if action == header.NEXT else -1)


def _switch(app: ChatApp, turn: Turn, step: int) -> None:
    """Shows another version of a message, and stays there."""
    if turn.siblings < 2:
        raise AppError("no branches here", "retry, edit and branch make them")
    siblings = app.session.store.siblings(turn.id)
    wanted = siblings[(siblings.index(turn.id) + step) % len(siblings)]
    app.session.switch_branch(wanted)
    app.show_chat()
    app.conversation.select_turn(wanted)


def _ask_to_delete(app: ChatApp, turn: Turn) -> None:
    branch = app.session.branch
    after = len(branch) - next(at for at, each in enumerate(branch) if each.id == turn.id) - 1
    what = "question" if turn.role == "user" else "answer"
    follows = f", and the {after} messages after it" if after > 1 else ", and its answer" if after else ""
    if turn.role == "assistant" and after == 1:
        follows = ", and the question after it"
    others = "; other branches stay" if turn.siblings > 1 else ""

    def answered(yes: bool | None) -> None:
        if yes:
            app.require_idle()
            app.session.delete(turn.id)
            app.show_chat()

    app.push_screen(Question(f"Delete this {what}{follows}{others}? It cannot be undone.", "delete"), answered)
