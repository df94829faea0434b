"""The engine process, which owns the model, and the client that talks to it: prompts, answers, policy `auto`, tasks."""
