"""The figures of one answer as one line."""

from __future__ import annotations

from specee.app.engine.protocol import Stats
from specee.app.options import DRAFTING

ENDS = {
    "stop": "complete",
    "length": "cut off by --max-tokens",
    "window": "cut off: the context window is full",
    "cancelled": "cancelled",
}


def about_thoughts(stats: Stats) -> str | None:
    """What a user should know where a thought did not end by itself."""
    if stats.thought_closed:
        return f"the thought was ended after {stats.thought_tokens} tokens, as --think-tokens says"
    if not stats.thought_cut:
        return None
    of_prompt = stats.prompt_thought_tokens
    n = f"{stats.thought_tokens + of_prompt} tokens"
    if stats.stop_reason == "stop":
        return "the model stopped with its thought: there is no answer"
    if stats.stop_reason == "window":
        return f"the thought was cut after {n}: the context window is full"
    return f"the thought was cut after {n}: a larger --max-tokens lets it end, --think-tokens N ends it for an answer"


def stats_line(stats: Stats) -> str:
    """How fast an answer came, how it was decoded, and how it ended."""
    if stats.policy in DRAFTING:
        how = f"{stats.policy_stats['accepted']} of the answer's tokens drafted"
    else:
        how = f"{stats.mean_exit_layer:.1f} of {stats.n_layers} layers per token on average"
    thoughts = f" ({stats.thought_tokens} of them thoughts)" if stats.thought_tokens else ""
    return (
        f"{stats.tokens} tokens{thoughts} at {stats.tokens_per_second:.1f} tokens/s, "
        f"the first after {stats.ttft_s:.2f} s; "
        f"prompt of {stats.prompt_tokens} tokens, {stats.reused} of them from the cache; "
        f"{how}; policy {stats.policy}: {stats.policy_reason}; {ENDS[stats.stop_reason]}"
    )
