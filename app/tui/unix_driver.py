"""Textual's terminal of Unix, which survives what the terminal sends, and comes back from every stop: Textual knows
only one that asks (Ctrl+Z)."""

from __future__ import annotations

import os
import selectors
import signal
from contextlib import suppress

from textual.drivers.linux_driver import LinuxDriver

from specee.app.engine.terminal_guard import LEAVE_SCREEN
from specee.app.errors import AppError
from specee.app.tui.boundary import BoundedApp
from specee.app.tui.emoji import anchored
from specee.app.tui.terminal_input import InputDecoder, InputParser

READ_BYTES = 1 << 16
TICK_SECONDS = 0.1


class UnixDriver(LinuxDriver):
    """After SIGSTOP from elsewhere, too, the terminal is set up and drawn again: the shell had it meanwhile."""

    _coming_back = False

    def _run_input_thread(self) -> None:
        try:
            self.run_input_thread()
        except Exception as error:
            app = self._app
            assert isinstance(app, BoundedApp)
            app.call_later(app.end_with, error)

    def run_input_thread(self) -> None:
        """Takes what the terminal sends until the screen is left. What cannot be handled is told, and left out."""
        decoder, parser = InputDecoder(), InputParser(self._debug)
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                text = decoder.decode(self._read()) if selector.select(TICK_SECONDS) else decoder.tick()
                try:
                    for message in parser.feed(text) if text else parser.tick():
                        self.process_message(message)
                except Exception as error:
                    parser = InputParser(self._debug)
                    self._app.call_later(self._app._handle_exception, error)

    def _read(self) -> bytes:
        try:
            data = os.read(self.fileno, READ_BYTES)
        except BlockingIOError:  # another program that has the terminal, too, lets nobody wait for it
            return b""
        if not data:
            raise AppError("the terminal is gone", "the chat is kept: specee-chat -c continues it")
        return data

    def write(self, data: str) -> None:
        if self._can_write():
            super().write(anchored(data))

    def close(self) -> None:
        if self._can_write():
            super().close()
        else:
            with suppress(OSError):
                os.write(self.fileno, LEAVE_SCREEN)

    def _can_write(self) -> bool:
        """Whether somebody takes what is written; nobody does when the terminal has refused something."""
        return self._writer_thread is not None and self._writer_thread.is_alive()

    def _sigtstp_application(self, *_: object) -> None:
        if self._is_ours():
            self._loop.call_soon_threadsafe(super()._sigtstp_application)
        else:
            super()._sigtstp_application()

    def _sigcont_application(self, *_: object) -> None:
        if self._is_ours() and not self._coming_back:
            self._coming_back = True
            self._loop.call_soon_threadsafe(self._come_back)

    def _is_ours(self) -> bool:
        """Whether the screen is, and not an editor's, say."""
        return self._auto_restart and self._writer_thread is not None and not self._loop.is_closed()

    def _come_back(self) -> None:
        """Not in the signal's handler: what is being drawn then may hold a lock that drawing needs."""
        try:
            if not self._auto_restart:  # the screen was left meanwhile, for an editor
                return
            if not self._must_signal_resume:  # nobody asked, so the screen was not left
                self._wait_for_foreground()
                self.suspend_application_mode()
                self._must_signal_resume = True
            super()._sigcont_application()
        finally:
            self._coming_back = False

    def disable_input(self) -> None:
        """What was typed and not read yet is lost when the screen is left, but not when it comes back at once."""
        if not self._coming_back:
            super().disable_input()
        elif self._key_thread is not None:
            self.exit_event.set()
            self._key_thread.join()
            self.exit_event.clear()

    def _wait_for_foreground(self) -> None:
        """In the background nobody may draw: stops until the shell gives the terminal back."""
        with suppress(OSError):  # there is no terminal any more
            while os.tcgetpgrp(self.fileno) != os.getpgrp():
                os.kill(os.getpid(), signal.SIGSTOP)
