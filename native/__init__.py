"""The runtime on top of llama.cpp: the library, and the engine that takes rows through layers. See native/README.md."""
