"""`specee-chat serve`: the OpenAI chat completions API for other programs on this machine."""
