"""A question that is answered with yes or no, above whatever is on the screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from specee.app.formatting import visible


class Question(ModalScreen[bool]):
    """Enter or y says yes, Esc or n says no; so do clicks on these words."""

    DEFAULT_CSS = """
    Question { align: center middle; }
    Question Vertical { width: 90%; max-width: 76; height: auto; max-height: 90%; padding: 1 2; background: $surface;
        border: round $accent; overflow-y: auto; }
    Question Static { height: auto; }
    Question .answers { margin-top: 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,y", "answer(True)", "yes", priority=True),
        Binding("escape,n,ctrl+c", "answer(False)", "no", priority=True),
    ]

    def __init__(self, text: str, yes: str = "yes") -> None:
        """`yes`: what a yes does, in a word or two."""
        super().__init__()
        self._text, self._yes = visible(text), yes

    def compose(self) -> ComposeResult:
        click_yes, click_no = "screen.answer(True)", "screen.answer(False)"
        with Vertical():
            yield Static(Content(self._text))
            yield Static(
                Content.from_markup(
                    f"[@click={click_yes}][b]Enter[/b] $yes[/]   [@click={click_no}][b]Esc[/b] no[/]", yes=self._yes
                ),
                classes="answers",
            )

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)
