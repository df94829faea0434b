"""The place for one view of the depth, and the state that all views share."""

from __future__ import annotations

from textual.containers import Vertical

from specee.app.tui.state import Gauge
from specee.app.tui.views import VIEWS, DepthView
from specee.app.tui.views.dial import Dial


class DepthPanel(Vertical):
    """Shows one of the views of its gauge."""

    DEFAULT_CSS = """
    DepthPanel { height: auto; }
    """

    def __init__(self) -> None:
        self._view = next(iter(VIEWS))
        super().__init__(VIEWS[self._view]())
        self.gauge = Gauge()
        self._n_layers = 1
        self._threshold: float | None = None

    @property
    def is_dial(self) -> bool:
        """Whether brackets turn something here."""
        return self._view == "dial"

    async def set_view(self, name: str) -> None:
        """Another picture of the same."""
        self._view = name
        await self.remove_children()
        await self.mount(VIEWS[name]())
        self.draw(self._n_layers, self._threshold)

    async def next_view(self) -> None:
        """The one after this."""
        names = list(VIEWS)
        await self.set_view(names[(names.index(self._view) + 1) % len(names)])

    def inspect(self, step: int) -> None:
        """Moves the inspector over the tokens of the last answer."""
        count = len(self.gauge.answer)
        self.gauge.cursor = max(-count, min(-1, self.gauge.cursor + step))
        self.draw(self._n_layers, self._threshold)

    def draw(self, n_layers: int, threshold: float | None) -> None:
        """Draws the gauge as it is now."""
        self._n_layers, self._threshold = n_layers, threshold
        for view in self.query(DepthView):
            if isinstance(view, Dial):
                view.threshold = threshold
            view.show(self.gauge, n_layers)
