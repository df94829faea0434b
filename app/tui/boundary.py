"""The one boundary of the screen: whatever a handler, an action or a timer raises becomes a notice, and the screen
stays.

Textual ends the app at the first exception. What is unexpected goes to a log; only a screen that cannot even show it
ends.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from weakref import WeakSet

from textual.app import App
from textual.dom import DOMNode
from textual.filter import LineFilter
from textual.geometry import Region
from textual.message import Message
from textual.notifications import SeverityLevel
from textual.strip import Strip
from textual.widget import Widget

from specee.app.tui.control_filter import ControlFilter

MOST_ERRORS, SECONDS = 20, 2.0  # more of them in that time: showing one brings the next
Dispatch = Callable[[Message], Awaitable[None]]


class BoundedApp(App[int]):
    """An app that survives its handlers, and whose terminal gets no control character from a text."""

    def __init__(self, *filters: LineFilter) -> None:
        """`filters`: for what is drawn, behind our own."""
        super().__init__()
        self._more_filters = filters
        self._error_times: deque[float] = deque(maxlen=MOST_ERRORS)
        self._control_filter = ControlFilter()
        self._undrawn: WeakSet[Widget] = WeakSet()  # widgets that could not draw themselves

    def show_error(self, error: Exception) -> None:
        """Tells the user."""
        raise NotImplementedError

    @property
    def fatal_error(self) -> Exception | None:
        """What ended the app, if it was an error."""
        return self._exception

    def get_line_filters(self) -> list[LineFilter]:
        return [*super().get_line_filters(), self._control_filter, *self._more_filters]

    async def _dispatch_message(self, message: Message) -> None:
        await self._survive(super()._dispatch_message, message)

    def _register_child(self, parent: DOMNode, child: Widget, before: int | None, after: int | None) -> None:
        super()._register_child(parent, child, before, after)
        self._guard(child)

    def _start_widget(self, parent: Widget, widget: Widget) -> None:  # scrollbars are not registered
        self._guard(widget)
        super()._start_widget(parent, widget)

    def _guard(self, widget: Widget) -> None:
        """Lets a widget survive its handlers (Textual would never give it another message), and drawing itself."""
        dispatch, draw = widget._dispatch_message, widget.render_lines

        async def survive(message: Message) -> None:
            await self._survive(dispatch, message)

        def render_lines(crop: Region) -> list[Strip]:
            try:
                return draw(crop)
            except Exception as error:
                if widget not in self._undrawn:  # once: the notice draws everything again
                    self._undrawn.add(widget)
                    self.call_later(self._handle_exception, error)
                return [Strip.blank(crop.width)] * crop.height

        widget._dispatch_message = survive  # type: ignore[method-assign]
        widget.render_lines = render_lines  # type: ignore[method-assign]

    async def _survive(self, dispatch: Dispatch, message: Message) -> None:
        try:
            await dispatch(message)
        except Exception as error:
            self._handle_exception(error)

    def _handle_exception(self, error: Exception) -> None:
        now = time.monotonic()
        too_many = len(self._error_times) == MOST_ERRORS and now - self._error_times[0] < SECONDS
        self._error_times.append(now)
        if not (too_many or self._closing) and self.is_running:
            try:
                self.show_error(error)
                return
            except Exception as second:
                error = second
        super()._handle_exception(error)

    def end_with(self, error: Exception) -> None:
        """Ends the app: without what failed there is no screen."""
        super()._handle_exception(error)

    def thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        """For `threading.excepthook`: what a thread raises, which would be written across the screen."""
        if isinstance(failed.exc_value, Exception):
            draws = failed.thread is not None and failed.thread.name == "textual-output"
            self.call_later(self.end_with if draws else self._handle_exception, failed.exc_value)

    def _fatal_error(self) -> None:
        # Textual would print a traceback; whoever runs the app prints one line
        self._close_messages_no_wait()

    def panic(self, *renderables: object) -> None:
        self._fatal_error()

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,  # brackets in a file name are no markup
    ) -> None:
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=markup)
