"""The algorithms of specee-chat: policies, drafters, early exits, and the calibration that they need.

No llama.cpp, no terminal and no file look-ups in here; the engine is seen through `types.Engine` only.
"""
