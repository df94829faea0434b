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

// A kernel for weights in columns (columns.h).
struct ColumnKernel {
    size_t packed_block; // bytes that `pack` makes of a quantized block of each of the rows
    // Rows of quantized blocks, as the product has them (n_in: any number of blocks) -> the order in which they are
    // read.
    void (*pack)(const specee_product &, void * packed);
    Kernel multiply; // p.rows: packed
};

// Without a `multiply` where there is none. as_batch: for a part of a batch of more rows than a small one has.
ColumnKernel find_columns(int type, int64_t n_rows, bool as_batch);
ColumnKernel find_columns_avx2(int type, int64_t n_rows, bool as_batch);
ColumnKernel find_columns_avx_vnni(int type, int64_t n_rows, bool as_batch);
ColumnKernel find_columns_256_avx2(int type, int64_t n_rows, bool as_batch); // of the types with 256 weights a block
ColumnKernel find_columns_256_avx_vnni(int type, int64_t n_rows, bool as_batch);
ColumnKernel find_columns_avx512_vnni(int type, int64_t n_rows, bool as_batch);
ColumnKernel find_columns_neon_dotprod(int type, int64_t n_rows, bool as_batch);
ColumnKernel find_columns_neon_i8mm(int type, int64_t n_rows, bool as_batch);

bool has_columns(); // for any type

// Whether ggml has rows of this type in groups of eight, where it is compiled as here and their number allows it: its
// order of additions is then another one, and of a batch it takes what is left of fours as single rows.
bool is_repacked(int type);

// For F16 weights, any number of rows; it is compiled as ggml is.
Kernel find_f16(int64_t n_in);

// For BF16 weights, two rows or more; compiled as ggml is.
Kernel find_bf16(int64_t n_in, int64_t n_rows);

// For weights in the layout of ggml's AMX code; compiled as that is.
Kernel find_amx_layout(int type, int64_t n_rows);

namespace { // nothing compiled for one set of instructions may be linked into code for another

// kernel_for(n) of the constant n = n_rows.
template <class F>
auto for_rows(int64_t n_rows, F kernel_for) -> decltype(kernel_for(std::integral_constant<int, 1>())) {
    switch (n_rows) {
        case 1: return kernel_for(std::integral_constant<int, 1>());
        case 2: return kernel_for(std::integral_constant<int, 2>());
        case 3: return kernel_for(std::integral_constant<int, 3>());
        case 4: return kernel_for(std::integral_constant<int, 4>());
        case 5: return kernel_for(std::integral_constant<int, 5>());
        case 6: return kernel_for(std::integral_constant<int, 6>());
        case 7: return kernel_for(std::integral_constant<int, 7>());
        case 8: return kernel_for(std::integral_constant<int, 8>());
        default: return {};
    }
}

} // namespace

} // namespace specee::small_batch
