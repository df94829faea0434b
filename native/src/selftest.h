// Small matrix products with each kind of weights and each CPU kernel, against a reference. A wrong kernel may kill the
// process: Python runs this in a child process (native/selftest.py).
#pragma once

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

// 0 when all products agree; else a negative status, and specee_last_error() names the product.
// use_extra_buffers: also the kernels with weight layouts of their own (AMX, repacked).
LLAMA_API int32_t specee_selftest(int32_t use_extra_buffers);

// Names of these layouts in this library on this CPU, separated by commas.
LLAMA_API const char * specee_cpu_buffers(void);

#ifdef __cplusplus
}
#endif
