"""Makes the README's picture from a real run: python tests/tui/screenshot.py [--policy P] [--output FILE]."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import click

from specee.app.chat.session import Session
from specee.app.options import ChatOptions, LoadOptions, PolicyChoice, Sampling
from specee.app.tui.app import ChatApp
from specee.app.tui.prompt_input import PromptInput

QUESTION = "Why is the sky blue?"
SIZE = (88, 26)
POLL_SECONDS = 0.1
PICTURE = Path(__file__).parents[2] / "app" / "tui" / "screenshot.svg"


async def take(policy: str, max_tokens: int) -> str:
    """The screen as SVG, after one answer of the embedded model."""
    options = ChatOptions(PolicyChoice.parse(policy), Sampling(seed=1), max_tokens)
    app = ChatApp(Session(LoadOptions()), options)
    async with app.run_test(size=SIZE) as pilot:
        prompt = app.query_one(PromptInput)
        prompt.cursor_blink = False
        while app.busy:
            await pilot.pause(POLL_SECONDS)
        prompt.text = QUESTION
        await pilot.press("enter")
        await pilot.pause(POLL_SECONDS)
        while app.busy:
            await pilot.pause(POLL_SECONDS)
        await pilot.pause(3 * POLL_SECONDS)
        svg = app.export_screenshot(title="specee-chat")
    return re.sub(r"@font-face\s*{.*?}", "", svg, flags=re.DOTALL)  # fonts from the web


@click.command()
@click.option("--policy", default="auto")
@click.option("--max-tokens", default=160)
@click.option("--output", type=click.Path(path_type=Path), default=PICTURE)
def main(policy: str, max_tokens: int, output: Path) -> None:
    """Make the README's picture."""
    output.write_text(asyncio.run(take(policy, max_tokens)), "utf-8")


if __name__ == "__main__":
    main()
