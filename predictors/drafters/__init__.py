"""Drafters: where candidates for the next tokens come from."""
