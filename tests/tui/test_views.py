"""The views, and the gauge that they draw."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_session import INFO, FakeSession, chat, idle, make_stats, ready, screen, submit, until, use_drafts
from textual.geometry import Size

from specee.app.engine.protocol import ChatEvent
from specee.app.tui.gauge import Gauge
from specee.app.tui.prompt_input import PromptInput
from specee.app.tui.status import Status, _fitting, status_lines
from specee.app.tui.views import VIEWS
from specee.app.tui.views.columns import Columns


def test_the_gauge_forgets_tokens_that_were_rolled_back() -> None:
    gauge = Gauge()
    gauge.begin("exact", "why", 80.0)
    for index, layer in enumerate((30, 24, 26)):
        gauge.add(ChatEvent(index, "x", 1, layer, "verified" if layer == 30 else "provisional", 0.1 * index))
    assert [c.verified for c in gauge.columns] == [True, False, False]
    gauge.add(ChatEvent(1, "", 1, 24, "rolled_back", 0.3))
    assert [c.layer for c in gauge.columns] == [30] and gauge.rolled_back == 2
    gauge.add(ChatEvent(1, "y", 1, 30, "verified", 0.4))
    assert gauge.mean_layer == 30.0 and gauge.rate == pytest.approx(1 / 0.4)


@pytest.mark.parametrize(
    ("policy", "figures", "skipping"),
    [
        ("exact", "40.0 tokens/s, dense here 80.0 · smollm2-135m · 27.0 of 30 layers per token", "1 of 2 tokens"),
        ("dense", "40.0 tokens/s · smollm2-135m", "no drafts, no token skips layers (policy dense: why)"),
    ],
)
def test_the_status_line_compares_with_dense(policy: str, figures: str, skipping: str) -> None:
    gauge = Gauge()
    gauge.begin(policy, "why", 80.0)
    for index, layer in enumerate((30, 24 if policy == "exact" else 30)):
        gauge.add(ChatEvent(index, "x", 1, layer, "verified", 0.025 * index))
    shown = status_lines(gauge, INFO, "")
    assert shown[0] == figures and shown[1].startswith(skipping)


def test_the_status_line_counts_drafted_tokens() -> None:
    gauge = Gauge()
    gauge.begin("chain", "why", 80.0)
    assert status_lines(gauge, INFO, "")[1] == "policy chain: why"
    for index, drafter in enumerate((None, "suffix", "retrieval", "retrieval", None)):
        gauge.add(ChatEvent(index, "x", 1, 30, "verified", 0.005 * index, drafter=drafter))
    figures, drafting = status_lines(gauge, INFO, "")
    assert figures == "200 tokens/s, dense here 80.0 · smollm2-135m"
    gauge.begin("chain", "why", 80.0, 38.2)  # a benchmark has measured it
    gauge.rate = 120.0
    worth = "120 tokens/s, dense here 80.0, stock llama.cpp about 38"
    assert status_lines(gauge, INFO, "")[0] == f"{worth} · smollm2-135m"
    assert _fitting(f"answering · {worth}", Size(46, 1)) == "answering · 120 tokens/s, dense here 80.0"
    where = "2 from common phrases, 1 from this chat"
    assert drafting == f"4.00 tokens a step; 3 of 5 tokens were drafted: {where} (policy chain)"


def test_tokens_of_one_step_share_it() -> None:
    gauge = Gauge()
    gauge.begin("chain", "why", 80.0)
    for index, drafter in enumerate((None, "suffix", "suffix", None, None, "model", None)):
        gauge.add(ChatEvent(index, "x", 1, 30, "verified", 0.1 * index, drafter=drafter))
    assert [column.step.tokens for column in gauge.columns] == [1, 3, 3, 3, 1, 2, 2]
    assert gauge.tokens_per_step == 2.0 and gauge.drafted == {"suffix": 2, "model": 1}
    counted = {"tokens": 7, "steps": 3, "dense_seconds": 0.12, "step_seconds": 0.06, "draft_seconds": 0.01}
    gauge.finish(make_stats(policy="chain", policy_stats=counted, tokens_per_second=60.0))
    assert gauge.dense_rate == pytest.approx(6 / 0.15) and gauge.drafted_so_far == 3
    gauge.begin("chain", "why", 80.0)
    gauge.add(ChatEvent(0, "x", 1, 30, "verified", 0.1, drafter="suffix"))
    gauge.add(ChatEvent(1, "", 2, 30, "verified", 0.1, stop=True))
    gauge.finish(make_stats(policy="chain", policy_stats=counted))
    assert [column.step.tokens for column in gauge.answer] == [2], "the stop token came with it"
    gauge.begin("exact", "why", 80.0)
    assert not gauge.drafts and not gauge.drafted


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("auto", "policy auto: easy tokens are guessed ahead"),
        ("dense", "no drafts"),
        ("specee@0.5", "tokens may skip layers"),
        ("chain", "policy chain: easy tokens are guessed ahead"),
    ],
)
def test_before_the_first_answer_the_status_line_says_what_will_be(policy: str, says: str) -> None:
    assert says in status_lines(Gauge(), INFO, "", policy=policy)[1]
    dense_only = replace(INFO, dense_only="the architecture has no layer ranges")
    why = "no token skips layers: the architecture has no layer ranges"
    assert status_lines(Gauge(), dense_only, "", policy="exact")[1] == why
    assert "drafted" in status_lines(Gauge(), dense_only, "")[1]


async def test_unverified_columns_are_dim() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        gauge = Gauge()
        gauge.add(ChatEvent(0, "x", 1, 30, "verified", 0.0))
        gauge.add(ChatEvent(1, "x", 1, 15, "provisional", 0.1))
        columns = pilot.app.query_one(Columns)
        columns.show(gauge, 30)
        rows = columns.rows()
        *bars, caption = rows
        assert [row[0][0] for row in bars] == ["█"] * 4
        assert [row[1][0] for row in bars] == [" ", " ", "█", "█"]
        assert [(row[0][1].dim, row[1][1].dim) for row in bars] == [(None, True)] * 4
        assert "".join(text for text, _ in caption).startswith("height: layers used █ all layers")
        assert pilot.app.query_one(Status).size.height == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("columns", "█"),
        ("tokens", "Bold"),
        ("histogram", "1 skipped layers"),
        ("token", "exit scores"),
        ("threshold", "threshold calibrated"),
        ("totals", "layers skipped"),
        ("costs", "1 of 3 tokens skipped layers"),
    ],
)
async def test_views(name: str, says: str) -> None:
    session = FakeSession()
    counts = ("exits", "probes", "checks", "checks_failed", "rolled_back", "check_seconds", "draft_seconds")
    session.stats = make_stats(policy_stats={**dict.fromkeys(counts, 1), "tokens": 3})
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, f"/view {name}")
        await pilot.pause(0.05)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.pause(0.1)
        assert isinstance(pilot.app.query_one(VIEWS[name]), VIEWS[name]) and says in screen(pilot.app)
        await pilot.press("f2")
        await pilot.pause(0.05)
        assert not pilot.app.query(VIEWS[name])


async def test_the_token_view_moves_over_tokens() -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "/view token")
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.press("ctrl+left")
        await pilot.pause(0.05)
        shown = screen(pilot.app)
        assert "token 2 of 3 used 24 of 30 layers" in shown
        assert "layer 24: 0.92" in shown and "candidates “ a”  “b”  “⏎”  “d”" in shown


@pytest.mark.parametrize("view", ["columns", "tokens"])
async def test_a_click_tells_of_a_token(view: str) -> None:
    session = FakeSession("one two three four five six")
    use_drafts(session, 6)
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await pilot.app.set_view(view)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.pause(0.3)
        shown = pilot.app.query_one(VIEWS[view])
        assert shown.TITLE in screen(pilot.app) and "legend" not in screen(pilot.app)
        await pilot.click(VIEWS[view], offset=(2, 4) if view == "columns" else (5, 1))
        await until(
            pilot, lambda: "token 2 “ two”: drafted from common phrases; its step gave 3 tokens" in screen(pilot.app)
        )
        await pilot.press("ctrl+right")
        await until(pilot, lambda: "token 3 “ three”" in screen(pilot.app))


async def test_brackets_change_the_threshold() -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "/view threshold")
        await pilot.pause(0.05)
        await pilot.press("[")
        await pilot.pause(0.05)
        assert "threshold calibrated" in screen(pilot.app), "policy auto has none"
        await submit(pilot, "/policy exact")
        await pilot.press("[", "[")
        await pilot.pause(0.05)
        assert "threshold 0.60" in screen(pilot.app)
        await pilot.press("a", "[")
        assert pilot.app.query_one(PromptInput).text == "a["


async def test_the_totals_say_when_exits_are_slower() -> None:
    gauge = Gauge()
    gauge.finish(make_stats(tokens=100, tokens_per_second=40.0, dense_rate=80.0))
    assert gauge.seconds_saved == pytest.approx(-1.25) and gauge.layers_saved == 270
    gauge.finish(make_stats(policy="dense", tokens_per_second=90.0, dense_rate=None))
    assert gauge.dense_rate == 90.0 and gauge.layers_saved == 270


async def test_without_colours_glyphs_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    session = FakeSession()
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "/view tokens")
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.pause(0.1)
        assert "█" in screen(pilot.app) and "▆" in screen(pilot.app)  # under the tokens
        gauge = Gauge()
        gauge.add(ChatEvent(0, "x", 1, 30, "provisional", 0.0))
        await pilot.app.set_view("columns")
        columns = pilot.app.query_one(Columns)
        columns.show(gauge, 30)
        assert columns.rows()[0][0][0] == "▒"


async def test_a_race_marks_the_first_difference() -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(80, 40)) as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await submit(pilot, "/race")
        await until(pilot, lambda: len(session.asked) == 3 and idle(pilot.app))
        await pilot.pause(0.2)
        assert [asked.options.policy.name for asked in session.asked[1:]] == ["dense", "auto"]
        assert "the same text" in screen(pilot.app)
        assert len(session.store.tree(session.chat.id)) == 2  # nothing of it is kept


async def test_f2_goes_through_the_views() -> None:
    async with chat(FakeSession()).run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        for name in [*list(VIEWS)[1:], "columns"]:
            await pilot.press("f2")
            await until(pilot, lambda name=name: bool(pilot.app.query(VIEWS[name])))


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light"])
@pytest.mark.parametrize("width", [60, 80, 120])
async def test_what_stands_on_the_screen_at_each_width(width: int, theme: str) -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(width, 24)) as pilot:
        pilot.app.theme = theme
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.pause(0.2)
        shown = screen(pilot.app)
        assert "Bold words here" in shown and "tokens/s" in shown and "1 of 3 tokens skipped layers" in shown
        assert ("Search all chats" in shown) == (width >= 100)
        assert pilot.app.query_one(PromptInput).region.bottom <= 24


@pytest.mark.parametrize("size", [(25, 6), (40, 10), (60, 13)])
async def test_a_low_window_has_the_prompt_and_the_end_of_the_answer(size: tuple[int, int]) -> None:
    async with chat(session := FakeSession("one two three")).run_test(size=size) as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: len(session.asked) == 1 and idle(pilot.app) and "one two three" in screen(pilot.app))
        pilot.app.prompt.text = "\n".join(f"line {number}" for number in range(9))
        await until(pilot, lambda: pilot.app.prompt.region.height == 4)
        assert pilot.app.prompt.region.bottom == size[1] and pilot.app.conversation.region.height >= 1
