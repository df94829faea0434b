"""Composition root: command line, session, engine process, benchmark and terminal screen."""
