"""How large the context window is: what was asked for, as far as the model and the memory allow it."""

from __future__ import annotations

from dataclasses import dataclass

from specee.app.errors import USAGE, AppError
from specee.app.formatting import size
from specee.app.options import DEFAULT_CTX, DEFAULT_KV_TYPE
from specee.app.settings import KVType
from specee.models import kv_cache

SHARE = 0.9  # of the memory that is free: something must remain for what computes
LEAST = 512  # tokens: with fewer there is no chat


@dataclass(frozen=True)
class WindowSize:
    """`notice`: what the user should know of it."""

    n_ctx: int
    notice: str | None = None


def choose(
    wanted: int | None, trained: int, token_bytes: int, free: int | None, kv_type: KVType = DEFAULT_KV_TYPE
) -> WindowSize:
    """A window for a model that was trained for `trained` tokens (0: unknown) of `token_bytes` each.

    Without a wish it is DEFAULT_CTX, or as much of it as the memory holds that is `free` (None: unknown). Raises
    AppError when a wish does not fit into it.
    """
    asked = wanted or DEFAULT_CTX
    n_ctx = min(asked, trained) if trained else asked
    notice = None
    if wanted is not None and n_ctx < wanted:
        notice = f"the context window is {n_ctx} tokens, not {wanted}: the model was trained for no more"
    fitting = n_ctx if free is None or token_bytes == 0 else int(SHARE * free) // token_bytes
    if fitting >= n_ctx:
        return WindowSize(n_ctx, notice)
    need = f"a context window of {n_ctx} tokens takes {size(n_ctx * token_bytes)} of memory, {size(free or 0)} are free"
    fitting = fitting // 256 * 256
    smaller = kv_type == DEFAULT_KV_TYPE and kv_cache.converted(n_ctx * token_bytes, "q8_0") <= SHARE * (free or 0)
    if fitting < LEAST:
        raise AppError("out of memory", f"{need}; close other programs, or take a smaller model")
    if wanted is not None:
        other = ", --kv-type q8_0" if smaller else ""
        raise AppError("out of memory", f"{need}; take --ctx {fitting}{other}, or close other programs", USAGE)
    return WindowSize(fitting, f"{need}: it is {fitting} tokens now")
