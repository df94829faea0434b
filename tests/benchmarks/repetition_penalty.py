"""What the repetition penalty does to answers: how many repeat themselves, and how many get longer.

    python tests/benchmarks/repetition_penalty.py [MODEL] [--prompts N] [--penalties P ...]

Prompts of the calibration are answered with each penalty, with the same seeds; the first penalty is what others are
compared with. An answer loops where it repeats twelve of its tokens.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import common

from specee.app.engine.decode import decode
from specee.app.engine.loading import NativeBackend, open_backend
from specee.app.engine.measurements import Measurements
from specee.app.engine.policy_chooser import PolicyChooser
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Message
from specee.app.options import LoadOptions, PolicyChoice, Sampling
from specee.predictors.calibration.settings import bundled_prompts
from specee.predictors.repetition import loop_start

KINDS = {"greedy": Sampling(temperature=0.0), "sampled": Sampling()}


@dataclass(frozen=True)
class Answer:
    n_tokens: int
    loops: bool
    ended: bool
    """Whether the model ended it itself."""


def answers(backend: NativeBackend, sampling: Sampling, prompts: list[str], max_tokens: int) -> Iterator[Answer]:
    chooser = PolicyChooser(Measurements())
    policy: Any = chooser.build_policy(backend, chooser.decide(backend, PolicyChoice("auto")).choice)
    for seed, text in enumerate(prompts):
        prompt = make_prompt(backend, (Message("user", text),)).tokens
        backend.engine.roll_back(0)
        backend.engine.prefill(prompt)
        _, steps = decode(backend, policy, prompt, sampling, seed, max_tokens)
        with closing(steps):  # type: ignore[type-var]
            events = list(steps)
        tokens = [event.token for event in events if not event.stop]
        yield Answer(len(tokens), loop_start(tokens) is not None, events[-1].stop)


def main() -> None:
    parser = common.parser(__doc__, rounds=1)
    common.add_model(parser, optional="the embedded model without it")
    parser.add_argument("--prompts", type=int, default=40, help="how many, of 166")
    parser.add_argument("--penalties", type=float, nargs="+", default=[1.0, 1.05, 1.1, 1.15, 1.2])
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    prompts = list(bundled_prompts())[:: max(1, 166 // given.prompts)][: given.prompts]
    with TemporaryDirectory() as data:
        model = str(given.model) if given.model else None
        load = LoadOptions(model=model, n_ctx=2048, threads=given.threads, data_dir=data)
        with closing(open_backend(load, lambda what, share: None)) as backend:
            print("| | penalty | loops | longer than without | median length | reaches the limit |")
            print("|---|---|---|---|---|---|")
            for kind in given.kinds:
                without: list[Answer] = []
                for penalty in given.penalties:
                    sampling = replace(KINDS[kind], repeat_penalty=penalty)
                    found = list(answers(backend, sampling, prompts, given.max_tokens))
                    without = without or found
                    longer = [a.n_tokens / b.n_tokens for a, b in zip(found, without, strict=True) if b.n_tokens]
                    n = len(found)
                    figures = (
                        f"{sum(a.loops for a in found) / n:.0%}",
                        f"{sum(ratio > 1.0 for ratio in longer) / n:.0%}",
                        f"{statistics.median(longer):.2f} times",
                        f"{sum(not a.ended for a in found) / n:.0%}",
                    )
                    print(f"| {kind} | {penalty:g} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
