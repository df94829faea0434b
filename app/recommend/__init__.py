"""Which model suits this machine: what fits into its memory, and how fast it would write. Nothing here prints."""
