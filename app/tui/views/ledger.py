"""What exits cost: the ones that failed, the words that were withdrawn."""

from __future__ import annotations

from specee.app.tui.views.base import DepthView, Row, lines


class Ledger(DepthView):
    """Counts of the last answer, and the milliseconds that led nowhere."""

    def picture(self) -> list[Row]:
        last = self.gauge.last
        if last is None or not last.policy_stats:
            return lines(f"{self.gauge.rolled_back} withdrawn so far; the rest stands here after the answer")
        stats = last.policy_stats
        failed, withdrawn = stats["checks_failed"], stats["rolled_back"]
        checking = stats["check_seconds"] * failed / stats["checks"] if stats["checks"] else 0.0
        # a withdrawn word has cost about a dense one
        redone = withdrawn / self.gauge.dense_rate if self.gauge.dense_rate else 0.0
        return lines(
            f"exits {stats['exits']} of {stats['tokens']} tokens, {stats['probes']} looks\n"
            f"failed checks {failed} of {stats['checks']}: {1000 * checking:.1f} ms\n"
            f"withdrawn words {withdrawn}: about {1000 * redone:.1f} ms\n"
            f"drafting {1000 * stats['draft_seconds']:.1f} ms; led nowhere {1000 * (checking + redone):.1f} ms in all"
        )
