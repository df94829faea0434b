// One set of kernels for each instruction set, chosen at run time.
#pragma once

#include "small_batch.h"

#include <type_traits>

namespace specee::small_batch {

using Kernel = void (*)(const specee_product &);

// Memory of this thread for `bytes`, aligned to 64: activations in the order in which a kernel reads them. It grows,
// and is never given back.
void * scratch(size_t bytes);

// The kernel for a type, a layout and a number of rows, or nullptr.
Kernel find_avx2(int type, specee_layout layout, int64_t n_rows);
Kernel find_avx_vnni(int type, specee_layout layout, int64_t n_rows);
Kernel find_avx512_vnni(int type, specee_layout layout, int64_t n_rows);
Kernel find_neon_dotprod(int type, specee_layout layout, int64_t n_rows);
Kernel find_neon_i8mm(int type, specee_layout layout, int64_t n_rows);

// For F16 weights, any number of rows; it is compiled as ggml is.
Kernel find_f16(int64_t n_in);

// For weights in the layout of ggml's AMX code; compiled as that is.
Kernel find_amx_layout(int type, int64_t n_rows);

namespace { // nothing compiled for one set of instructions may be linked into code for another

// kernel_for(n) of the constant n = n_rows.
template <class F> Kernel for_rows(int64_t n_rows, F kernel_for) {
    switch (n_rows) {
        case 1: return kernel_for(std::integral_constant<int, 1>());
        case 2: return kernel_for(std::integral_constant<int, 2>());
        case 3: return kernel_for(std::integral_constant<int, 3>());
        case 4: return kernel_for(std::integral_constant<int, 4>());
        case 5: return kernel_for(std::integral_constant<int, 5>());
        case 6: return kernel_for(std::integral_constant<int, 6>());
        case 7: return kernel_for(std::integral_constant<int, 7>());
        case 8: return kernel_for(std::integral_constant<int, 8>());
        default: return nullptr;
    }
}

} // namespace

} // namespace specee::small_batch
