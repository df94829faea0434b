"""Where the program begins. Loading it takes a moment, in which Ctrl+C or too little memory would be a traceback, so
this module loads nothing that is not there already."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what the module signal is made of, without the enumerations that it loads
import os
import sys

FAILURE, INTERRUPTED = 1, 130  # as in errors.py
LOADING_BYTES = 48 << 20  # loading takes 30 MB


def main() -> None:
    """Runs the program, and leaves with its exit code."""
    interruptible = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler  # nohup and & may say otherwise
    if interruptible:
        _signal.signal(_signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        bytes(LOADING_BYTES)  # of what is loaded some parts end the process where they get no memory
        from specee.app.cli.program import run
    except (MemoryError, ImportError, SystemError) as error:
        if not _of_memory(error):
            raise
        _no_memory()
    if interruptible:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    try:
        code = run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (MemoryError, SystemError) as error:
        if not _of_memory(error):
            raise
        _no_memory()
    if interruptible:
        _signal.signal(_signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # while the interpreter ends
    sys.exit(code)


def _of_memory(error: BaseException | None) -> bool:
    """Whether something could not be loaded because there was no room for it."""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, SystemError) and "exception set" in text:  # C code that had no memory for its exception
            return True
        if isinstance(error, MemoryError) or "failed to map segment" in text or "allocate memory" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def _no_memory() -> None:
    """Ends the process at once: what is left of it may have no memory to end in order."""
    line = (
        b"specee-chat: not enough memory: the program cannot be loaded; close others, or raise the limit (ulimit -v)\n"
    )
    os.write(2, line)
    os._exit(FAILURE)


if __name__ == "__main__":
    main()
