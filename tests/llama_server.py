"""llama.cpp's own server, the pinned one unpatched: CONTRIBUTING.md says how to build it."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 120.0
ONE_BY_ONE = ("--ubatch-size", "1")
"""With these options the rows of a batch are computed one after the other. Otherwise llama.cpp rounds them in other
ways than single ones, and with drafts goes on with another token where two are almost equally likely."""
DRAFTS = re.compile(r"spec_decode_num_drafts_total (\d+)")
ACCEPTED = re.compile(r'spec_decode_num_accepted_tokens_per_pos_total\{position="\d+"\} (\d+)')


@dataclass(frozen=True)
class Completion:
    """`tokens`: also the one that ended the answer. `seconds`: from the first one to the last one."""

    tokens: list[int]
    seconds: float
    prompt_seconds: float
    drafted: int
    accepted: int


class LlamaServer:
    """A process on a port of its own. `head`: an EAGLE-3 head drafts `n_drafts` tokens in every step."""

    def __init__(
        self,
        program: Path,
        model: Path,
        *,
        n_ctx: int,
        threads: int,
        log: Path,
        head: Path | None = None,
        n_drafts: int = 3,
        options: Sequence[str] = (),
    ) -> None:
        self.log = log
        self.port = _free_port()
        command = [str(program), "-m", str(model), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--ctx-size", str(n_ctx), "--parallel", "1", "--threads", str(threads)]
        # no copies of the cache between two answers, and attention as we have it: it is faster on a CPU
        command += ["--cache-ram", "0", "--flash-attn", "off", "--metrics", "--offline"]
        if head is not None:
            command += ["-md", str(head), "--spec-type", "draft-eagle3"]
            command += ["--spec-draft-n-max", str(n_drafts), "--spec-draft-p-min", "0"]
        with log.open("wb") as out:
            self._process = subprocess.Popen([*command, *options], stdout=out, stderr=subprocess.STDOUT)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def complete(self, prompt: Sequence[int], max_tokens: int) -> Completion:
        """Greedy, after a prompt that is read anew."""
        asked = {
            "prompt": list(prompt),
            "n_predict": max_tokens,
            "samplers": ["top_k"],
            "top_k": 1,
            "cache_prompt": False,
            "return_tokens": True,
        }
        answer = json.loads(self._request("POST", "/completion", json.dumps(asked)))
        timings = answer["timings"]
        return Completion(
            tokens=answer["tokens"],
            seconds=timings["predicted_ms"] / 1000,
            prompt_seconds=timings["prompt_ms"] / 1000,
            drafted=timings.get("draft_n", 0),
            accepted=timings.get("draft_n_accepted", 0),
        )

    def drafts(self) -> tuple[int, list[int]]:
        """Since it started: steps that verified drafts, and how many had the first token accepted, the second, .."""
        text = self._request("GET", "/metrics")
        steps = DRAFTS.search(text)
        assert steps is not None, text
        return int(steps[1]), [int(n) for n in ACCEPTED.findall(text)]

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self._request("GET", "/health")
                return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    last = self.log.read_text("utf-8", "replace").splitlines()[-5:]
                    raise RuntimeError("\n".join(["llama-server does not run:", *last])) from error
                time.sleep(0.1)

    def _request(self, method: str, path: str, body: str | None = None) -> str:
        """Raises OSError where nothing listens yet, or the model is not loaded."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
            if response.status != 200:
                raise OSError(f"{method} {path}: {response.status} {text[:200]}")
            return text
        finally:
            connection.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
