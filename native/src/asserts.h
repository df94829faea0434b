// llama.cpp's assertions throw, where they would end the process: a model whose numbers contradict each other is an
// error. Read before everything else in each source of libllama (CMakeLists.txt). Those of ggml still end it.
#pragma once

#include "ggml.h"

#ifdef __cplusplus
[[noreturn]] void specee_assertion_failed(const char * file, int line, const char * format, ...);

#undef GGML_ABORT
#define GGML_ABORT(...) specee_assertion_failed(__FILE__, __LINE__, __VA_ARGS__)
#endif
