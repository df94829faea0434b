"""Chats on disk: a tree of turns in SQLite, written while they grow."""
