"""The figures of one answer as one line."""

from __future__ import annotations

from specee.app.engine.protocol import Stats

ENDS = {
    "stop": "complete",
    "length": "ended by --max-tokens",
    "window": "ended by the full context window",
    "cancelled": "cancelled",
}


def stats_line(stats: Stats) -> str:
    """What an answer cost and how it was made, the most important things first."""
    return (
        f"{stats.tokens} tokens, {stats.tokens_per_second:.1f} tokens/s, first token after {stats.ttft_s:.2f} s; "
        f"prompt of {stats.prompt_tokens} tokens, {stats.reused} of them read before; "
        f"policy {stats.policy}: {stats.policy_reason}; "
        f"{stats.mean_exit_layer:.1f} of {stats.n_layers} layers run for a token on average; {ENDS[stats.stop_reason]}"
    )
