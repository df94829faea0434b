"""What skipping layers cost in the last answer: failed checks, tokens rolled back, drafting."""

from __future__ import annotations

from specee.app.tui.views.base import DepthView, Row, lines


class Ledger(DepthView):
    """Counts of the last answer, and the milliseconds wasted."""

    CAPTION = "what skipping layers cost in the last answer: refused stops, tokens computed twice"

    def rows(self) -> list[Row]:
        last = self.gauge.last
        if last is None or not last.policy_stats:
            return lines(f"{self.gauge.rolled_back} tokens rolled back so far; the costs stand here after the answer")
        stats = last.policy_stats
        failed, rolled_back = stats["checks_failed"], stats["rolled_back"]
        checking = stats["check_seconds"] * failed / stats["checks"] if stats["checks"] else 0.0
        # a token that was rolled back has cost about a dense one
        redone = rolled_back / self.gauge.dense_rate if self.gauge.dense_rate else 0.0
        return lines(
            f"{stats['exits']} of {last.tokens} tokens skipped layers; {stats['probes']} tests for stopping\n"
            f"stops that the check refused  {failed} of {stats['checks']}: {1000 * checking:.1f} ms\n"
            f"tokens rolled back  {rolled_back}: about {1000 * redone:.1f} ms\n"
            f"drafting {1000 * stats['draft_seconds']:.1f} ms; wasted {1000 * (checking + redone):.1f} ms in all"
        )
