"""Views of the tokens: their drafts, the layers they used. All draw one Gauge; one of them is shown at a time."""

from specee.app.tui.views.base import DepthView
from specee.app.tui.views.columns import Columns
from specee.app.tui.views.costs import Costs
from specee.app.tui.views.histogram import Histogram
from specee.app.tui.views.one_token import OneToken
from specee.app.tui.views.threshold import ThresholdView
from specee.app.tui.views.token_colours import TokenColours
from specee.app.tui.views.totals import Totals

VIEWS: dict[str, type[DepthView]] = {
    "columns": Columns,
    "tokens": TokenColours,
    "histogram": Histogram,
    "token": OneToken,
    "threshold": ThresholdView,
    "totals": Totals,
    "costs": Costs,
}

__all__ = ["VIEWS", "DepthView"]
