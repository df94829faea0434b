"""Garbage is collected while the user reads, so that it does not stop an answer or scrolling."""

from __future__ import annotations

import gc


def collect_and_freeze() -> None:
    """Collects now, and leaves what remains out of later collections: these would stop Python for 100 ms at any moment.

    What was left out the last time is collected again: it may be garbage by now. Code highlighting is imported here
    too: the import stops Python for about as long.
    """
    from specee.app.tui.markdown import highlighted

    highlighted(("pass",), "python")
    gc.unfreeze()
    gc.collect()
    gc.freeze()
