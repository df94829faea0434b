"""The place for one view of the tokens, and the gauge that all views show."""

from __future__ import annotations

from textual.containers import Vertical

from specee.app.tui.gauge import Gauge
from specee.app.tui.views import VIEWS, DepthView
from specee.app.tui.views.threshold import ThresholdView

OFF = "off"


class DepthPanel(Vertical):
    """Shows one of the views of its gauge, or none."""

    DEFAULT_CSS = """
    DepthPanel { height: auto; }
    """

    def __init__(self) -> None:
        self.name_shown = next(iter(VIEWS))
        self._view: DepthView | None = VIEWS[self.name_shown]()
        super().__init__(self._view)
        self.gauge = Gauge()
        self._n_layers = 1
        self._threshold: float | None = None

    @property
    def is_threshold(self) -> bool:
        """Whether the view is the one where brackets change the threshold."""
        return self.name_shown == "threshold"

    async def set_view(self, name: str) -> None:
        """Shows another view of the same gauge; "off" for none."""
        self.name_shown, self._view = name, None
        await self.remove_children()
        if name != OFF:
            self._view = VIEWS[name]()
            await self.mount(self._view)
            self.draw(self._n_layers, self._threshold)

    async def next_view(self) -> None:
        """Shows the view after this one."""
        names = [OFF, *VIEWS]
        index = names.index(self.name_shown)
        await self.set_view(names[index + 1] if index + 1 < len(names) else names[1])

    def inspect(self, step: int) -> None:
        """Chooses another one of the tokens of the last answer."""
        self.choose(self.gauge.cursor + step)

    def choose(self, cursor: int) -> None:
        """Chooses a token of the last answer, counted from the end; -1, the last one, is as good as none."""
        self.gauge.cursor = max(-len(self.gauge.answer), min(-1, cursor))
        self.draw(self._n_layers, self._threshold)

    def draw(self, n_layers: int, threshold: float | None) -> None:
        """Draws the gauge as it is now."""
        self._n_layers, self._threshold = n_layers, threshold
        if isinstance(self._view, ThresholdView):
            self._view.threshold = threshold
        if self._view is not None:
            self._view.show(self.gauge, n_layers)
