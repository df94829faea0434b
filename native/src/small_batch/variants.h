// One set of kernels for each instruction set, chosen at run time.
#pragma once

#include "small_batch.h"

namespace specee::small_batch {

using Kernel = void (*)(const specee_product &);

// Memory of this thread for `bytes`, aligned to 64: activations in the order in which a kernel reads them. It grows,
// and is never given back.
void * scratch(size_t bytes);

// The kernel for a type, a layout and a number of rows, or nullptr.
Kernel find_avx2(int type, specee_layout layout, int64_t n_rows);
Kernel find_avx_vnni(int type, specee_layout layout, int64_t n_rows);
Kernel find_avx512_vnni(int type, specee_layout layout, int64_t n_rows);

// For F16 weights, any number of rows; it is compiled as ggml is.
Kernel find_f16(int64_t n_in);

} // namespace specee::small_batch
