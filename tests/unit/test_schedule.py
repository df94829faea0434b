"""The two levels of the schedule."""

from __future__ import annotations

from specee.predictors.exits.schedule import Schedule


def test_schedule_levels() -> None:
    schedule = Schedule([4, 6, 8, 10], [8], recent_exits=2, reach=2)
    assert schedule.armed() == (8,)
    assert not schedule.record(8)
    assert schedule.armed() == (6, 8, 10)
    assert schedule.record(10)
    assert schedule.online() == {6, 8, 10}
    assert not schedule.record(None)
    assert schedule.armed() == (8, 10)
    schedule.record(None)
    assert schedule.armed() == (8,)
    schedule.record(4)
    schedule.reset()
    assert schedule.armed() == (8,)
    assert Schedule([4, 6], [], arm_all=True).armed() == (4, 6)
