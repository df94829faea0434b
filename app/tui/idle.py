"""What is done while the user reads, so that it does not come in the middle of an answer or of scrolling."""

from __future__ import annotations

import gc


def tidy() -> None:
    """Looks for garbage now, and never again in what is left: Python would stop for 100 ms to do it, at any moment.

    The colours of code are made ready too, which is an import of a similar length.
    """
    from specee.app.tui.markdown import coloured

    coloured(("pass",), "python")
    gc.collect()
    gc.freeze()
