"""Greedy texts of our policies against an unpatched llama-cpp-python, which runs in an interpreter of its own.

    python tests/benchmarks/compare_stock.py --stock PYTHON --prompts FILE.jsonl [--policies dense,exact]

The other interpreter needs llama-cpp-python of the pinned version as it comes from the index (where its build dies of
SIGILL, build it with CMAKE_ARGS="-DCMAKE_C_FLAGS=-mno-amx-tile -DCMAKE_CXX_FLAGS=-mno-amx-tile"). It gets the prompts
as tokens and decodes one row at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from common import STOCK_ENDED, start_stock

STOCK = """
import json, sys
import llama_cpp
job = json.load(sys.stdin)
llama = llama_cpp.Llama(job["model"], n_ctx=job["n_ctx"], n_threads=job["threads"], verbose=False)
texts = []
for prompt in job["prompts"]:
    llama.reset()
    tokens = []
    for token in llama.generate(prompt, temp=0.0, repeat_penalty=1.0):
        tokens.append(int(token))
        if len(tokens) == job["n"] or llama_cpp.llama_vocab_is_eog(llama._model.vocab, token):
            break
    texts.append(tokens)
print(json.dumps(texts))
"""


def main() -> None:
    """Entry point: exit code 1 when a text differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock", required=True, help="an interpreter with the unpatched llama-cpp-python")
    parser.add_argument("--prompts", required=True, type=Path)
    parser.add_argument("--model", help="a GGUF file (default: the embedded model)")
    parser.add_argument("--policies", default="dense,exact")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--data-dir")
    options = parser.parse_args()

    from specee.app.engine.decode import decode
    from specee.app.engine.loading import open_backend
    from specee.app.engine.prompt import make_prompt
    from specee.app.engine.protocol import Message
    from specee.app.options import PLAIN_GREEDY, LoadOptions, PolicyChoice
    from specee.predictors.types import TokenState

    load = LoadOptions(model=options.model, data_dir=options.data_dir)
    backend = open_backend(load, lambda what, share: None)
    engine = backend.engine
    lines = options.prompts.read_text("utf-8").splitlines()[: options.limit]
    prompts = [make_prompt(backend, (Message("user", json.loads(line)["prompt"]),)).tokens for line in lines]
    job = {"model": backend.info.path, "n_ctx": engine.n_ctx, "threads": backend.info.threads, "prompts": prompts}
    stock = start_stock(options.stock, STOCK)
    answer, _ = stock.communicate(json.dumps({**job, "n": options.max_tokens}))
    if stock.returncode != 0:
        sys.exit(STOCK_ENDED)
    theirs = json.loads(answer)
    worst = 0
    for name in options.policies.split(","):
        policy = backend.policy(PolicyChoice(name))
        same = 0
        for line, prompt, expected in zip(lines, prompts, theirs, strict=True):
            engine.roll_back(0)  # the whole prompt in one batch, as there
            engine.prefill(prompt)
            policy.reset()
            _, events = decode(backend, policy, prompt, PLAIN_GREEDY, 0, options.max_tokens)
            tokens = [event.token for event in events if event.state is TokenState.VERIFIED]
            same += tokens == expected
            if tokens != expected:
                equal = [a == b for a, b in zip(tokens, expected, strict=False)]
                at = equal.index(False) if False in equal else len(equal)
                print(f"{name}: {json.loads(line).get('id')} differs at token {at}", file=sys.stderr)
        print(f"{name}: {same} of {len(prompts)} texts equal stock's")
        worst = max(worst, int(same < len(prompts)))
    backend.close()
    sys.exit(worst)


if __name__ == "__main__":
    main()
