"""The program: command line, engine process, chats, terminal screen, server and benchmark.

It puts specee.native, specee.predictors and specee.models together, which do not know each other.
"""
