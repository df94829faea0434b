"""What is left out of collections is looked at again: else a screen that is open for long only grows."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from specee.app.tui.garbage_collection import collect_and_freeze


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_became_garbage_while_it_was_frozen_is_freed() -> None:
    cycle = Cycle()
    freed = weakref.ref(cycle)
    collect_and_freeze()
    assert gc.get_freeze_count() > 0
    del cycle
    gc.collect()
    assert freed() is not None, "frozen"
    collect_and_freeze()
    assert freed() is None


def test_the_frozen_do_not_grow() -> None:
    collect_and_freeze()
    before = gc.get_freeze_count()
    for _ in range(5):
        cycles = [Cycle() for _ in range(10_000)]
        collect_and_freeze()
        del cycles
    collect_and_freeze()
    assert gc.get_freeze_count() < before + 10_000
