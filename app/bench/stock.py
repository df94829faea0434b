"""An unpatched llama-cpp-python beside ours: another interpreter, in a process that works only while it is asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from specee.app.bench.answer import Answer
from specee.app.errors import FAILURE, USAGE, AppError
from specee.app.options import Sampling
from specee.app.paths import expand
from specee.app.settings import KVType

PROGRAM = Path(__file__).with_name("stock_program.py")
OURS = ("PYTHONPATH", "PYTHONHOME", "LLAMA_CPP_LIB_PATH")  # variables that would lead it to our library
CLOSE_SECONDS = 3.0


class Stock:
    """`version` is the one of llama-cpp-python that it must have. Raises AppError where it cannot be compared."""

    def __init__(self, python: str, version: str) -> None:
        self._python = python
        environment = {name: value for name, value in os.environ.items() if name not in OURS}
        try:
            self._process = subprocess.Popen(
                [str(expand(python)), str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                encoding="utf-8",
            )
        except OSError as error:
            raise _unusable(python, f"{error.strerror or error}") from error
        try:
            _check(python, self._receive(USAGE), version)
        except BaseException:
            self.close()
            raise

    def load(
        self,
        model: str,
        n_ctx: int,
        n_batch: int,
        threads: int,
        gpu_layers: int,
        kv_type: KVType,
        sampling: Sampling,
    ) -> None:
        """Opens the model as ours is opened."""
        engine = {"model": model, "n_ctx": n_ctx, "n_batch": n_batch, "threads": threads}
        engine |= {"gpu_layers": gpu_layers, "kv_type": kv_type}
        self._ask({**engine, **asdict(sampling), "seed": sampling.seed or 0})

    def answer(self, prompt: Sequence[int], max_tokens: int) -> Answer:
        """Decodes after a prompt that is read outside of the times."""
        said = self._ask({"prompt": list(prompt), "max_tokens": max_tokens})
        return Answer(said["tokens"], said["times"])

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, message: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end shows when receiving
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        said = self._receive(FAILURE)
        if "error" in said:
            raise AppError("the stock library failed", f"{said['error']} ({self._python})")
        return said

    def _receive(self, exit_code: int) -> dict[str, Any]:
        """The next line of the process. Raises AppError with `exit_code` when it has ended, or says what no one can."""
        assert self._process.stdout is not None
        try:
            said = json.loads(self._process.stdout.readline() or "-")
        except ValueError:
            said = None
        if isinstance(said, dict):
            return said
        self._process.kill()
        code = self._process.wait()
        why = "it is no Python interpreter" if exit_code == USAGE else "it ended"
        if code < 0 and code != -signal.SIGKILL:
            why = f"it ended with {signal.Signals(-code).name}"
        raise _unusable(self._python, why, exit_code)


def _check(python: str, said: dict[str, Any], version: str) -> None:
    install = f"install it there: pip install llama-cpp-python=={version}"
    if "version" not in said:
        raise _unusable(python, f"no llama_cpp that can be imported in it ({said.get('error')}); {install}")
    if said["patched"]:
        raise _unusable(python, "its llama.cpp is our own, patched one; take an environment without specee-chat")
    if said["version"] != version:
        raise _unusable(python, f"it has llama-cpp-python {said['version']}, not {version}, which ours is; {install}")


def _unusable(python: str, why: str, exit_code: int = USAGE) -> AppError:
    return AppError("the stock library cannot be compared", f"{python}: {why}", exit_code)
