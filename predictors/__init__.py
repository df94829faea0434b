"""The algorithms of specee-chat: early exits, drafts, policies, and the calibration they need.

No llama.cpp, no terminal and no file look-ups in here; the engine is seen through `types.Engine` only.
"""
