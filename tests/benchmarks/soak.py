"""Hours under load: does `specee-chat serve` grow? `python tests/benchmarks/soak.py RECORD.jsonl --hours 8`

Several clients ask for all kinds of answers at once: short and long ones, chats that go on, streams that are left in
the middle, prompts that do not fit, bodies that are no JSON. Each minute a line goes to RECORD with the memory of the
server and of its engine (without the mapped model), and what was answered. Started again, it appends another run; the
hours of all runs count. The growth of a run is from the hour after its warm-up, or a tenth of it, to its last; the exit
code is 1 when the memory of the longest run has grown by 1% or more, or when something was answered that should not
have been. Linux only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAMPLE_SECONDS = 60.0
MAX_GROWTH = 0.01
WARM_UP_SHARE = 0.1
MAX_TURNS = 6
QUESTIONS = (
    "Why is the sky blue?",
    "Write a Python function that reverses a list.",
    "Name five things to check before renting a flat.",
    "What is 17 times 23? Show the steps.",
    "Explain how a refrigerator keeps food cold.",
)


class Server:
    """`specee-chat serve` with its engine."""

    def __init__(self, model: str | None, n_slots: int, n_ctx: int, data: str) -> None:
        options = ["--port", "0", "--parallel", str(n_slots), "--ctx", str(n_ctx), "--data-dir", data]
        options += ["--model", model] if model else []
        command = [sys.executable, "-m", "specee.app.cli.main", "serve", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said = ""
        while (found := re.search(r"http://[^:/]+:(\d+)", said)) is None:
            line = self.process.stderr.readline()
            if not line:
                raise SystemExit(f"the server did not start: {said}")
            said += line
        self.port = int(found[1])
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def memory(self) -> tuple[int, int]:
        """Bytes of the server and of its engine that are no file's."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        engines = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        return _anonymous(self.process.pid), sum(map(_anonymous, engines))


def _anonymous(pid: int) -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


class Client(threading.Thread):
    """Asks until it is told to stop, and counts what it gets."""

    def __init__(self, port: int, n_ctx: int, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.counts: Counter[str] = Counter()
        self._port, self._n_ctx, self._stopped = port, n_ctx, stop
        self._chance = random.Random(seed)
        self._chat: list[dict[str, str]] = []

    def run(self) -> None:
        kinds: tuple[tuple[Callable[[], str], float], ...] = (
            (self._go_on, 6), (self._long_prompt, 1), (self._leave, 2), (self._too_long, 1), (self._no_json, 1),
        )  # fmt: skip
        ways, weights = zip(*kinds, strict=True)
        while not self._stopped.is_set():
            try:
                (way,) = self._chance.choices(ways, weights)
                self.counts[way()] += 1
            except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
                self.counts[f"unexpected: {type(error).__name__}"] += 1
                time.sleep(1)

    def _go_on(self) -> str:
        """A question of a chat, which begins anew after some turns."""
        if len(self._chat) >= 2 * MAX_TURNS:
            self._chat = []
        self._chat.append({"role": "user", "content": self._chance.choice(QUESTIONS)})
        sampling = self._chance.choice(({}, {"temperature": 0}, {"temperature": 1.0, "seed": 3}, {"stop": ["\n\n"]}))
        status, body = self._ask({"messages": self._chat, "max_tokens": 64, **sampling})
        if status != 200:
            self._chat = []
            return f"unexpected: {status}"
        self._chat.append({"role": "assistant", "content": json.loads(body)["choices"][0]["message"]["content"]})
        return "answered"

    def _long_prompt(self) -> str:
        words = "word " * self._chance.randrange(self._n_ctx // 8, self._n_ctx // 2)
        return self._expect(200, {"messages": [{"role": "user", "content": words}], "max_tokens": 16})

    def _too_long(self) -> str:
        return self._expect(400, {"messages": [{"role": "user", "content": "word " * 2 * self._n_ctx}]})

    def _no_json(self) -> str:
        status, _ = self._post(b'{"messages": [')
        return "refused" if status in (400, 422) else f"unexpected: {status}"

    def _leave(self) -> str:
        """Reads a little of a stream, and goes."""
        question = [{"role": "user", "content": self._chance.choice(QUESTIONS)}]
        connection = self._connect()
        try:
            body = json.dumps({"messages": question, "max_tokens": 400, "stream": True})
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            connection.getresponse().read(self._chance.randrange(1, 2000))
        finally:
            connection.close()
        return "left"

    def _expect(self, status: int, content: dict[str, Any]) -> str:
        found, _ = self._ask(content)
        return {200: "answered", 400: "refused"}[status] if found == status else f"unexpected: {found}"

    def _ask(self, content: dict[str, Any]) -> tuple[int, bytes]:
        return self._post(json.dumps(content).encode())

    def _post(self, body: bytes) -> tuple[int, bytes]:
        connection = self._connect()
        try:
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all runs the hours and the answers; of the longest one the growth."""
    runs: dict[int, list[dict[str, Any]]] = {}
    for sample in samples:
        runs.setdefault(sample["run"], []).append(sample)
    longest = max(runs.values(), key=lambda run: run[-1]["seconds"])
    total = sum((Counter(run[-1]["counts"]) for run in runs.values()), Counter())
    return {
        "runs": len(runs),
        "hours": round(sum(run[-1]["seconds"] for run in runs.values()) / 3600, 2),
        "longest_run_hours": round(longest[-1]["seconds"] / 3600, 2),
        "growth": {who: _growth([sample[who] for sample in longest]) for who in ("server", "engine")},
        "counts": dict(total),
    }


def _growth(sizes: list[int]) -> float | None:
    """From the first samples after the warm-up to as many at the end; None for a run that is too short for that."""
    n = min(60, int(len(sizes) * WARM_UP_SHARE))
    if n == 0:
        return None
    return round(statistics.median(sizes[-n:]) / statistics.median(sizes[n : 2 * n]) - 1, 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, help="a file that grows by a line a minute")
    parser.add_argument("--hours", type=float, default=8.0, help="of all runs together")
    parser.add_argument("--model", help="as specee-chat takes it; by default the embedded one")
    parser.add_argument("--clients", type=int, default=6, help="some more than answers at once: the others wait")
    parser.add_argument("--parallel", type=int, default=4, help="answers at once")
    parser.add_argument("--ctx", type=int, default=2048)
    given = parser.parse_args()
    samples = [json.loads(line) for line in given.record.read_text().splitlines()] if given.record.exists() else []
    run = len({sample["run"] for sample in samples})
    left = given.hours * 3600 - (summary(samples)["hours"] * 3600 if samples else 0)
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as data:
        server = Server(given.model, given.parallel, given.ctx, data)
        clients = [Client(server.port, given.ctx, 100 * run + i, stop) for i in range(given.clients)]
        for client in clients:
            client.start()
        began = time.monotonic()
        try:
            while (seconds := time.monotonic() - began) < left:
                time.sleep(min(SAMPLE_SECONDS, left - seconds))
                of_server, of_engine = server.memory()
                counts = sum((client.counts for client in clients), Counter())
                sample = {"run": run, "seconds": round(time.monotonic() - began, 1), "server": of_server}
                samples.append({**sample, "engine": of_engine, "counts": dict(counts)})
                with given.record.open("a") as record:
                    record.write(json.dumps(samples[-1]) + "\n")
        except KeyboardInterrupt:
            pass
        finally:
            stop.set()
            server.process.terminate()
            server.process.wait()
    found = summary(samples)
    print(json.dumps(found))
    grown = any(growth is not None and growth >= MAX_GROWTH for growth in found["growth"].values())
    return int(grown or any(what.startswith("unexpected") for what in found["counts"]))


if __name__ == "__main__":
    sys.exit(main())
