"""Workers on the loopback, as a user starts them: each is a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

PROGRAM = "import sys; sys.argv[0] = 'specee-chat'; from specee.app.cli.main import main; main()"
END_SECONDS = 20


@contextmanager
def worker_process(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A worker with one thread on a port that is free, and its endpoint."""
    command = [sys.executable, "-c", PROGRAM, "worker", "--port", "0", "--threads", "1", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    try:
        line = process.stdout.readline()
        found = re.match(r"worker on (\S+:\d+): ", line)
        assert found is not None, line + process.stderr.read()
        yield process, found[1]
    finally:
        process.kill()
        process.wait(END_SECONDS)
        process.stdout.close()
        process.stderr.close()


@contextmanager
def workers(n: int) -> Iterator[list[str]]:
    """The endpoints of `n` workers."""
    with ExitStack() as stack:
        yield [stack.enter_context(worker_process())[1] for _ in range(n)]
