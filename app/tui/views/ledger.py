"""What skipping layers cost in the last answer: failed checks, tokens rolled back, drafting."""

from __future__ import annotations

from specee.app.tui.views.base import DepthView, Row, lines


class Ledger(DepthView):
    """Counts of the last answer, and the milliseconds wasted."""

    CAPTION = "what skipping layers cost in the last answer: refused exits, tokens computed twice"

    def rows(self) -> list[Row]:
        last = self.gauge.last
        if last is None or not last.policy_stats:
            return lines(f"{self.gauge.rolled_back} tokens rolled back so far; the costs stand here after the answer")
        stats = last.policy_stats
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
