"""Makes the README's pictures: python tests/tui/screenshot.py. One is of an answer of the embedded model, the other of
a prepared one that shows what messages can have in them (test_screenshot.py looks whether that is current)."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parent))

from fake_session import FakeSession, make_stats, use_drafts

from specee.app.chat.session import Session
from specee.app.options import ChatOptions, LoadOptions, PolicyChoice, Sampling
from specee.app.tui.app import ChatApp
from specee.app.tui.prompt_input import PromptInput

QUESTION = "Why is the sky blue?"
SIZE = (88, 30)
POLL_SECONDS = 0.1
FOLDER = Path(__file__).parents[2] / "app" / "tui"
PICTURE, MESSAGES = FOLDER / "screenshot.svg", FOLDER / "messages.svg"
PREPARED_QUESTION = "How do I compute the mean of a list?"
PREPARED = r"""The **mean** of $x_1, \ldots, x_n$ is their sum, divided by how many there are:

$$\bar{x} = \frac{1}{n} \sum_{i=1}^{n} x_i$$

```python
def mean(numbers):
    return sum(numbers) / len(numbers)
```

| numbers | mean |
|---------|------|
| 1, 2, 3 | 2.0  |
| -1, 1   | 0.0  |
"""


async def take(policy: str, max_tokens: int) -> str:
    """The screen as SVG, after one answer of the embedded model."""
    options = ChatOptions(PolicyChoice.parse(policy), Sampling(seed=1), max_tokens)
    app = ChatApp(Session(LoadOptions()), options)
    async with app.run_test(size=SIZE) as pilot:
        await _ask(pilot, QUESTION)
        return _svg(app)


async def take_messages() -> str:
    """The screen as SVG, with the prepared answer given twice, and keys at the second one."""
    session = FakeSession(PREPARED)
    session.stats = make_stats()
    use_drafts(session, len(PREPARED.split(" ")))
    app = ChatApp(session, ChatOptions())
    async with app.run_test(size=(88, 34)) as pilot:
        await _ask(pilot, PREPARED_QUESTION)
        await pilot.press("ctrl+r")
        await _answered(pilot)
        await pilot.press("alt+up")
        await pilot.press(*["ctrl+left"] * 12)
        await pilot.pause(2 * POLL_SECONDS)
        return re.sub(r"\b\d\d:\d\d\b", "14:32", _svg(app))


async def _ask(pilot: Any, question: str) -> None:
    prompt = pilot.app.query_one(PromptInput)
    prompt.cursor_blink = False
    while pilot.app.busy:
        await pilot.pause(POLL_SECONDS)
    prompt.text = question
    await pilot.press("enter")
    await _answered(pilot)


async def _answered(pilot: Any) -> None:
    await pilot.pause(POLL_SECONDS)
    while pilot.app.busy:
        await pilot.pause(POLL_SECONDS)
    await pilot.pause(3 * POLL_SECONDS)


def _svg(app: ChatApp) -> str:
    svg = app.export_screenshot(title="specee-chat")
    return re.sub(r"@font-face\s*{.*?}", "", svg, flags=re.DOTALL)  # fonts from the web


@click.command()
@click.option("--policy", default="auto")
@click.option("--max-tokens", default=160)
@click.option("--output", type=click.Path(path_type=Path), help="Only the picture of a real answer, in this file.")
def main(policy: str, max_tokens: int, output: Path | None) -> None:
    """Make the README's pictures."""
    (output or PICTURE).write_text(asyncio.run(take(policy, max_tokens)), "utf-8")
    if output is None:
        MESSAGES.write_text(asyncio.run(take_messages()), "utf-8")


if __name__ == "__main__":
    main()
