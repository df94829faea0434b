"""What the screen costs: python tests/benchmarks/screen_cost.py [--policy P] [--rounds N], on an idle machine.

The embedded model answers the same question again and again in the real program, drawn to a pseudo terminal. Compared
are the engine's own tokens per second (decoding only): each view against none, one after the other within each round;
and the whole screen against `specee-chat -p`, which has none. Ratios are taken within a round; printed are their median
with its standard error, and their quartiles. The UI's processor time is that of its process, in milliseconds per second
of decoding: a view cannot cost the engine more than it adds to that.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import pseudo_terminal

from specee.app.chat.history.store import Store
from specee.app.chat.session import Session
from specee.app.options import ChatOptions, LoadOptions, PolicyChoice, Sampling
from specee.app.tui.app import ChatApp
from specee.app.tui.depth_panel import OFF
from specee.app.tui.views import VIEWS

QUESTION = "Write a long story about a ship, a storm and an island."
REST_SECONDS = 0.3


class Costed(ChatApp):
    """Asks the question under each view, and reports the rates."""

    def __init__(self, options: ChatOptions, views: list[str], rounds: int, report: Path) -> None:
        super().__init__(Session(LoadOptions(), store=Store()), options)
        self._views, self._rounds, self._report = views, rounds, report

    def on_ready(self) -> None:
        self.run_worker(self._measure())

    async def _measure(self) -> None:
        await self._until_free()
        found: list[dict[str, Any]] = []
        for number in range(self._rounds):
            shift = number % len(self._views)
            rates: dict[str, Any] = {}
            for view in self._views[shift:] + self._views[:shift]:
                await self.set_view(view)
                rates[view] = await self._answer()
            found.append(rates)
        self._report.write_text(json.dumps(found))
        self.exit(0)

    async def _answer(self) -> tuple[float, float]:
        """Tokens per second, and the UI's processor time per second of decoding."""
        self.session.new()
        self.show_chat()
        await asyncio.sleep(REST_SECONDS)
        cpu = time.process_time()
        await self.controller.submit(QUESTION)
        await self._until_free()
        stats = self.panel.gauge.last
        assert stats is not None
        return stats.tokens_per_second, (time.process_time() - cpu) / (stats.total_s or 1.0)

    async def _until_free(self) -> None:
        while self.busy:
            await asyncio.sleep(0.05)


def _inside(policy: str, max_tokens: int, views: list[str], rounds: int) -> list[dict[str, Any]]:
    """Runs the measured app in a pseudo terminal; returns its rates, an entry for each round."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = {"policy": policy, "max-tokens": max_tokens, "views": ",".join(views), "rounds": rounds}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        code, end = pseudo_terminal.run([sys.executable, __file__, *arguments, "--inside", str(report)])
        if code or not report.exists():
            raise click.ClickException(f"{end}\nit ended with {code}")
        found: list[dict[str, Any]] = json.loads(report.read_text())
        return found


def _without_screen(policy: str, max_tokens: int) -> float:
    program = "from specee.app.cli.main import main; main()"
    arguments = ["-p", QUESTION, "--json", "--no-history", "--temperature", "0", "--seed", "1"]
    command = [sys.executable, "-c", program, *arguments, "--policy", policy, "--max-tokens", str(max_tokens)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return float(json.loads(done.stdout)["tokens_per_second"])


def _line(name: str, rates: list[float], ratios: list[float], cpu: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    error = 1.25 * (high - low) / 1.35 / len(ratios) ** 0.5  # of the median, as for a normal distribution
    figures = f"{statistics.median(rates):7.1f} tokens/s   ratio {middle:.3f} +-{error:.3f} ({low:.3f} to {high:.3f})"
    return f"{name:12}{figures}" + (f"   UI {1000 * statistics.median(cpu):4.0f} ms/s" if cpu else "")


@click.command()
@click.option("--policy", default="exact", show_default=True)
@click.option("--max-tokens", default=200, show_default=True)
@click.option("--rounds", default=9, show_default=True)
@click.option("--views", default=",".join([OFF, *VIEWS]), help='Which ones; "off" is what they are compared with.')
@click.option("--pairs", default=5, show_default=True, help="How often the screen is compared with -p.")
@click.option("--inside", type=click.Path(path_type=Path), hidden=True, help="Run in the terminal that is measured.")
def main(policy: str, max_tokens: int, rounds: int, views: str, pairs: int, inside: Path | None) -> None:
    """Measure what the views and the screen cost."""
    if inside is not None:
        options = ChatOptions(PolicyChoice.parse(policy), Sampling(temperature=0.0, seed=1), max_tokens)
        Costed(options, views.split(","), rounds, inside).run()
        return
    names = [OFF, *(view for view in views.split(",") if view != OFF)]
    if rounds:
        found = _inside(policy, max_tokens, names, rounds)
        click.echo(f"policy {policy}, {max_tokens} tokens, {rounds} rounds; ratios to the view {OFF!r}")
        for name in names:
            ratios = [entry[name][0] / entry[OFF][0] for entry in found]
            click.echo(_line(name, [e[name][0] for e in found], ratios, [e[name][1] for e in found]))
    screens, plains = [], []
    for _ in range(pairs):
        plains.append(_without_screen(policy, max_tokens))
        screens.append(_inside(policy, max_tokens, ["columns"], 1)[0]["columns"][0])
    if pairs:
        click.echo(f"the whole screen, {pairs} pairs; ratios to -p")
        click.echo(_line("-p", plains, [1.0] * pairs, []))
        click.echo(_line("screen", screens, [s / p for s, p in zip(screens, plains, strict=True)], []))


if __name__ == "__main__":
    main()
