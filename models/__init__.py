"""From the name of a model to a verified file on this machine: registry, cache, download, headers of GGUF files."""
