"""A draft head in specee-chat and in llama.cpp's own llama-server: how many drafts are accepted, and how fast both are.

    python tests/benchmarks/draft_head.py LLAMA_SERVER HEAD [--model MODEL] [--prompts FILE.jsonl] [--max-tokens N]

LLAMA_SERVER: built from the pinned source without our patch (CONTRIBUTING.md). All get the same prompt tokens, greedy,
one after the other, and from prompt to prompt in the opposite order:

    llama-server         no drafter
    llama-server+head    the head drafts --drafts tokens in every step
    dense                ours, no drafts
    head                 ours, policy chain: the head alone drafts as many tokens in every step
    auto                 ours, as users have it: all drafters, where they pay

Prints JSON: an acceptance is a share of the drafted tokens; by position in the draft, of those after accepted ones.
`same_text` has the acceptance where both heads saw the same text: llama-server rounds rows of a batch in other ways
than single ones, and goes on with another token where two are almost equally likely. With --one-by-one all compute
tokens one by one, slowly, and the acceptances can be compared exactly. Ours reads the prompt with its first draft,
llama-server with the prompt: `with_prompt` counts both times.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import common

sys.path.insert(0, str(Path(__file__).parents[1]))

from head_alone import head_alone
from llama_server import ONE_BY_ONE, LlamaServer

from specee.app import machine
from specee.app.bench.prompts import read_prompts
from specee.app.engine.decode import decode
from specee.app.engine.loading import NativeBackend, open_backend
from specee.app.engine.measurements import Measurements
from specee.app.engine.policy_chooser import PolicyChooser
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Message
from specee.app.first_difference import first_difference
from specee.app.options import PLAIN_GREEDY, LoadOptions, PolicyChoice
from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.stats import DraftCounts

DENSE, HEAD, AUTO, STOCK, STOCK_HEAD = "dense", "head", "auto", "llama-server", "llama-server+head"
WARM_UP_TOKENS = 16


@dataclass(frozen=True)
class Answer:
    """`tokens`: also the one that ends it. `seconds`: from the first one to the last one. `accepted`: how often
    the first token of a draft was, the second, .."""

    tokens: list[int]
    seconds: float
    prompt_seconds: float
    n_steps: int
    n_drafted: int
    n_drafts: int
    """Steps that verified some."""
    accepted: list[int]


Ask = Callable[[list[int], int], Answer]


def ask_ours(backend: NativeBackend, policy: Policy) -> Ask:
    engine = backend.engine

    def ask(prompt: list[int], max_tokens: int) -> Answer:
        assert backend.draft_model is not None
        backend.draft_model.need_states(policy.name != DENSE)
        engine.roll_back(0)
        began = time.perf_counter()
        engine.prefill(prompt)
        prompt_seconds = time.perf_counter() - began
        policy.reset()
        state, steps = decode(backend, policy, prompt, PLAIN_GREEDY, 0, max_tokens)
        with closing(steps):  # type: ignore[type-var]
            seen = [(time.perf_counter(), event) for event in steps]
        drafts = sum(state.stats.drafts.values(), DraftCounts())
        return Answer(
            tokens=[event.token for _, event in seen],
            seconds=seen[-1][0] - seen[0][0],
            prompt_seconds=prompt_seconds,
            n_steps=state.stats.steps,
            n_drafted=sum(drafts.drafted),
            n_drafts=max(drafts.drafted, default=0),
            accepted=drafts.accepted,
        )

    return ask


def ask_theirs(server: LlamaServer) -> Ask:
    def ask(prompt: list[int], max_tokens: int) -> Answer:
        n_before, before = server.drafts()
        found = server.complete(prompt, max_tokens)
        n_drafts, after = server.drafts()
        accepted = [n - m for n, m in zip_longest(after, before, fillvalue=0)]
        return Answer(
            tokens=found.tokens,
            seconds=found.seconds,
            prompt_seconds=found.prompt_seconds,
            n_steps=len(found.tokens) - 1 - found.accepted,
            n_drafted=found.drafted,
            n_drafts=n_drafts - n_before,
            accepted=accepted,
        )

    return ask


@contextmanager
def participants(given: Any, backend: NativeBackend, logs: Path) -> Iterator[dict[str, Ask]]:
    """All that are compared, by name."""
    chooser = PolicyChooser(Measurements())
    auto = chooser.decide(backend, PolicyChoice("auto")).choice
    if given.one_by_one:
        backend.engine.n_batch = 1
    with ExitStack() as opened:

        def server(name: str, head: Path | None) -> LlamaServer:
            made = LlamaServer(
                given.llama_server,
                Path(backend.info.path),
                n_ctx=backend.engine.n_ctx,
                threads=backend.info.threads,
                log=logs / f"{name}.log",
                head=head,
                n_drafts=given.drafts,
                options=ONE_BY_ONE if given.one_by_one else (),
            )
            return opened.enter_context(closing(made))

        yield {
            STOCK: ask_theirs(server(STOCK, None)),
            STOCK_HEAD: ask_theirs(server(STOCK_HEAD, given.head)),
            DENSE: ask_ours(backend, chooser.build_policy(backend, PolicyChoice(DENSE))),
            HEAD: ask_ours(backend, head_alone(backend, given.drafts)),
            AUTO: ask_ours(backend, chooser.build_policy(backend, auto, history=False)),
        }


def acceptance(answers: list[Answer], *, equally_long: bool = True) -> dict[str, Any]:
    """`equally_long`: all drafts are. Otherwise it is not known how often a draft went on after an accepted token."""
    steps, drafted = sum(a.n_steps for a in answers), sum(a.n_drafted for a in answers)
    accepted = [sum(column) for column in zip_longest(*(a.accepted for a in answers), fillvalue=0)]
    tries = [sum(a.n_drafts for a in answers), *accepted]
    by_position = [share(n, of) for n, of in zip(accepted, tries, strict=False)]
    return {
        "prompts": len(answers),
        "steps": steps,
        "drafted": drafted,
        "accepted": sum(accepted),
        "acceptance": share(sum(accepted), drafted),
        "acceptance_by_position": by_position if equally_long else None,
        "tokens_per_step": share(sum(len(a.tokens) - 1 for a in answers), steps),
    }


def share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def figures(found: list[dict[str, Answer]], name: str) -> dict[str, Any]:
    """Of all answers of one; rates are medians over the answers of what it wrote a second, over llama-server's."""
    answers = [each[name] for each in found]
    parted = [first_difference(each[name].tokens, each[DENSE].tokens) for each in found]
    rates = [(len(a.tokens) - 1) / a.seconds for a in answers]
    with_prompt = [len(a.tokens) / (a.seconds + a.prompt_seconds) for a in answers]
    stock = [(len(each[STOCK].tokens) - 1) / each[STOCK].seconds for each in found]
    return {
        **acceptance(answers, equally_long=name != AUTO),
        "tokens": sum(len(a.tokens) for a in answers),
        "tokens_per_second": round(statistics.median(rates), 1),
        "with_prompt": round(statistics.median(with_prompt), 1),
        "over_llama_server": round(statistics.median(a / b for a, b in zip(rates, stock, strict=True)), 3),
        "texts_of_dense": parted.count(None),
        "first_differences": [at for at in parted if at is not None],
    }


def report(found: list[dict[str, Answer]]) -> dict[str, Any]:
    same = [each for each in found if each[HEAD].tokens == each[STOCK_HEAD].tokens]
    return {
        "rows": {name: figures(found, name) for name in found[0]},
        "same_text": {name: acceptance([each[name] for each in same]) for name in (STOCK_HEAD, HEAD)},
    }


def main() -> None:
    parser = common.parser(__doc__, rounds=1)
    parser.add_argument("llama_server", type=Path, metavar="LLAMA_SERVER", help="the program llama-server")
    parser.add_argument("head", type=Path, metavar="HEAD", help="an EAGLE-3 head (GGUF) of the model")
    parser.add_argument("--model", help="a file or a name; without it, the embedded model")
    parser.add_argument("--prompts", metavar="FILE.jsonl", help="as bench takes them; without it, bench's own")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--drafts", type=int, default=3, help="tokens that the head drafts in a step, 1 to 7")
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("--one-by-one", action="store_true", help="no two tokens at once: for the acceptances only")
    given = parser.parse_args()
    prompts = read_prompts(given.prompts)
    with TemporaryDirectory() as data, ExitStack() as opened:
        load = LoadOptions(
            model=given.model, drafter=str(given.head), n_ctx=given.ctx, threads=given.threads, data_dir=data
        )
        backend = opened.enter_context(closing(open_backend(load, lambda what, done: None)))
        asks = opened.enter_context(participants(given, backend, Path(data)))
        tokens = [make_prompt(backend, (Message("user", prompt.text),)).tokens for prompt in prompts]
        for ask in asks.values():
            ask(tokens[0], WARM_UP_TOKENS)
        found: list[dict[str, Answer]] = []
        for number in range(given.rounds):
            for index, prompt in enumerate(tokens):
                order = list(asks) if (number + index) % 2 == 0 else list(reversed(asks))
                answers = {name: asks[name](prompt, given.max_tokens) for name in order}
                found.append({name: answers[name] for name in asks})
                print(f"prompt {index + 1} of {len(tokens)}", file=sys.stderr, flush=True)
        facts = {
            "model": backend.info.name,
            "model_sha256": backend.sha256,
            "head": given.head.name,
            "one_by_one": given.one_by_one,
            "drafts": given.drafts,
            "max_tokens": given.max_tokens,
            "rounds": given.rounds,
            "machine": machine.report(backend.info.threads),
        }
        print(json.dumps({**facts, **report(found)}, indent=1))


if __name__ == "__main__":
    main()
