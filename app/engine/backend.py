"""What answering needs of a model and an engine: the real ones are put together in loading.py, tests bring fakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from specee.app.engine.protocol import Message, ModelInfo
from specee.app.engine.thinking import Thinking
from specee.app.options import PolicyChoice, Sampling
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.policy import Policy
from specee.predictors.types import Engine, Sampler


class ChatEngine(Engine, Protocol):
    """An engine that also reads prompts."""

    tokens: list[int]
    """What the KV cache holds, a token for each position."""
    n_threads: int
    n_batch: int
    """Tokens of a prompt that are computed at once, at most."""

    @property
    def no_drafts(self) -> str | None:
        """Why tokens cannot be drafted; None where they can."""
        ...

    @property
    def slots(self) -> Sequence[ChatEngine]:
        """The engines that share this one's model, itself first: each has the cache of a chat."""
        ...

    @property
    def active_threads(self) -> int:
        """Threads of the next computation: fewer than n_threads while other processes keep cores busy."""
        ...

    def fix_threads(self, n: int) -> None:
        """Exactly n threads from now on; 0: as the machine allows."""
        ...

    def limit_single_row(self, n: int) -> None:
        """At most n threads for a single row."""
        ...

    def prefill(self, tokens: Sequence[int], on_chunk: Callable[[int, int], None] | None = None) -> int:
        """Read the prompt, keeping the common prefix with the cache; returns how many tokens were reused."""
        ...

    def logits(self, i: int) -> Any:
        """float32 [n_vocab]: a copy of one row of logits."""
        ...

    def cancel(self) -> None:
        """Interrupt the computation under way and all that follow, from any thread."""
        ...

    def resume(self) -> None:
        """Compute again after `cancel`."""
        ...


class Backend(Protocol):
    """A loaded model: its text, its engine, and the policies that it can run."""

    info: ModelInfo
    engine: ChatEngine
    sha256: str
    """Of the model file; calibrations and measurements belong to it."""
    notices: tuple[str, ...]
    """What the user should know of the model as it is loaded."""
    bos_text: str
    """The beginning-of-sequence token as templates write it; "" when the vocabulary has none."""

    turn_stops: tuple[str, ...]
    """Texts that end an answer, as the user's next turn begins with them: where only text marks turns."""
    thinking: Thinking

    def format(
        self, messages: Sequence[Message], tools: str | None = None, variables: Mapping[str, Any] | None = None, /
    ) -> str:
        """The chat in the model's chat template, with the tools that it may call: the JSON of a list; and with more
        variables of the template.

        Raises AppError when the template refuses it.
        """
        ...

    @property
    def control_tokens(self) -> Sequence[str]:
        """Their names in texts, and those of all other tokens that only the template may write."""
        ...

    def tokenize(self, text: str, *, bos: bool, special: bool = True, is_rest: bool = False) -> list[int]:
        """Names of control tokens in the text are read as such, without `special` as text; `bos` puts BOS first where
        the vocabulary wants one; `is_rest`: the text goes on from other text."""
        ...

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The UTF-8 bytes of a token, perhaps only a part of a character; of a special one with `special` only."""
        ...

    def sampler(self, sampling: Sampling, grammar: str | None = None, top_logprobs: int | None = None) -> Sampler:
        """`grammar`: in GBNF. Raises AppError for a token that the vocabulary lacks, and a grammar that is none."""
        ...

    def begin_chat(self) -> None:
        """Another chat begins: what is drafted from may have become more, or less."""
        ...

    def exit_rule_names(self) -> tuple[str, ...]:
        """The exit rules that this model is calibrated for, the default one first."""
        ...

    def policy(self, choice: PolicyChoice, cost: CostModel | None = None, *, history: bool = True) -> Policy:
        """Raises AppError when the policy cannot run on this model. For policies that draft: the `cost` of steps, and
        whether earlier chats (`history`) are drafted from."""
        ...

    def advance_together(self, batches: Sequence[tuple[Any, Sequence[int]]], end: int, logits: bool = False) -> None:
        """Rows of several of the engine's slots in one batch: see AdvanceTogether."""
        ...

    def close(self) -> None: ...
