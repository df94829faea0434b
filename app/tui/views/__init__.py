"""Views of the tokens: their drafts, the layers they used. All draw one Gauge; one of them is shown at a time."""

from specee.app.tui.views.base import DepthView
from specee.app.tui.views.dial import Dial
from specee.app.tui.views.elevator import Elevator
from specee.app.tui.views.inspector import Inspector
from specee.app.tui.views.ledger import Ledger
from specee.app.tui.views.odometer import Odometer
from specee.app.tui.views.skyline import Skyline
from specee.app.tui.views.token_colours import TokenColours

VIEWS: dict[str, type[DepthView]] = {
    "skyline": Skyline,
    "lens": TokenColours,
    "elevator": Elevator,
    "inspector": Inspector,
    "dial": Dial,
    "odometer": Odometer,
    "ledger": Ledger,
}

__all__ = ["VIEWS", "DepthView"]
