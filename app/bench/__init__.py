"""`specee-chat bench`: the policies over the same prompts in turn, each compared with dense."""
