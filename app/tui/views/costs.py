"""What drafting or skipping layers cost in the last answer: what was rejected, and the time it took."""

from __future__ import annotations

from typing import Any

from specee.app.tui.views.base import DepthView, Row, lines


class Costs(DepthView):
    """Counts of the last answer, and the milliseconds wasted."""

    CAPTION = "what drafting or skipping layers cost in the last answer: rejected drafts, refused exits, time"

    TITLE = "Costs"

    def sentence(self) -> str:
        return "what the last answer spent on drafts or exits"

    def rows(self) -> list[Row]:
        last = self.gauge.last
        if last is None or not last.policy_stats:
            so_far = "" if self.gauge.drafts else f"{self.gauge.rolled_back} tokens rolled back so far; "
            return lines(f"{so_far}the costs stand here after the answer")
        stats = last.policy_stats
        if self.gauge.drafts:
            return lines(_drafting(stats))
        failed, rolled_back = stats["checks_failed"], stats["rolled_back"]
        checking = stats["check_seconds"] * failed / stats["checks"] if stats["checks"] else 0.0
        rate = self.gauge.dense_rate
        redone = f": about {1000 * rolled_back / rate:.1f} ms" if rate else ""
        wasted = f"; wasted {1000 * (checking + rolled_back / rate):.1f} ms in all" if rate else ""
        return lines(
            f"{stats['exits']} of {last.tokens} tokens skipped layers; {stats['probes']} probes\n"
            f"exits that the check refused  {failed} of {stats['checks']}: {1000 * checking:.1f} ms\n"
            f"tokens rolled back  {rolled_back}{redone}\n"
            f"drafting {1000 * stats['draft_seconds']:.1f} ms{wasted}"
        )


def _drafting(stats: dict[str, Any]) -> str:
    accepted, tested, spent = stats["accepted"], stats["tested"], stats["step_seconds"] + stats["draft_seconds"]
    dense = stats["dense_seconds"]
    return (
        f"{accepted} of {tested} drafted tokens were accepted, {tested - accepted} were computed in vain\n"
        f"{stats['tokens']} tokens in {stats['steps']} steps: {1000 * stats['step_seconds']:.0f} ms\n"
        f"drafting them {1000 * stats['draft_seconds']:.1f} ms\n"
        f"one token at a time it would have been about {1000 * dense:.0f} ms instead of {1000 * spent:.0f}"
    )
