// The x86 kernels, for any of the vector widths of simd_x86.h. N: rows of activations; all of them pass a weight at
// once.
//
// What ggml's one-row kernels add as integers is exact and may be added in any order; what they add as floats is added
// here lane by lane in their order. Included once for each instruction set (x86_*.cpp).
#pragma once

#include "ggml.h"
#include "x86_kernels_256_low.h"
#include "x86_kernels_32.h"
#include "x86_kernels_repacked.h"

namespace specee::small_batch {
namespace {

template <class V, int N> Kernel kernel_for(int type, specee_layout layout) {
    if (layout == SPECEE_REPACKED_8X8) {
        switch (type) {
            case GGML_TYPE_Q4_0: return multiply_group_32<V, GroupQ4_0, N>;
            case GGML_TYPE_IQ4_NL: return multiply_group_32<V, GroupIQ4_NL, N>;
            case GGML_TYPE_MXFP4: return multiply_group_32<V, GroupMXFP4, N>;
            case GGML_TYPE_Q4_K: return multiply_group_q4_k<V, N>;
            default: return nullptr;
        }
    }
    if (layout != SPECEE_ROWS) {
        return nullptr;
    }
    // one row of these is as fast or faster in ggml's own kernel
    constexpr bool with_q2_k = N > 1, with_q3_k = N > 1 || V::vnni;
    switch (type) {
        case GGML_TYPE_Q4_0: return multiply_32<V, Q4_0, N>;
        case GGML_TYPE_Q4_1: return multiply_32<V, Q4_1, N>;
        case GGML_TYPE_Q5_0: return multiply_32<V, Q5_0, N>;
        case GGML_TYPE_Q5_1: return multiply_32<V, Q5_1, N>;
        case GGML_TYPE_Q8_0: return multiply_32<V, Q8_0<V::vnni>, N>;
        case GGML_TYPE_Q2_K: return with_q2_k ? multiply_q2_k<V, N> : nullptr;
        case GGML_TYPE_Q3_K: return with_q3_k ? multiply_started_256<V, Q3_K, N> : nullptr;
        case GGML_TYPE_Q4_K: return multiply_k<V, Q4_K, N>;
        case GGML_TYPE_Q5_K: return multiply_k<V, Q5_K, N>;
        case GGML_TYPE_Q6_K: return multiply_q6_k<V, N>;
        case GGML_TYPE_IQ4_XS: return multiply_started_256<V, IQ4_XS, N>;
        default: return nullptr;
    }
}

template <class V> Kernel find(int type, specee_layout layout, int64_t n_rows) {
    return for_rows(n_rows, [=](auto n) { return kernel_for<V, decltype(n)::value>(type, layout); });
}

} // namespace
} // namespace specee::small_batch
