// The kernels for 64-bit ARM; i8mm: with its matrix instructions, for repacked groups that interleave 8 numbers. N:
// rows of activations; all of them pass a weight at once. Included once for each instruction set (neon_*.cpp).
//
// Compared bit for bit with ggml's kernels for one row under emulation (tests/native/test_small_batch_arm.py), which
// tells nothing about time: not yet run or measured on a real machine.
#pragma once

#include "ggml.h"
#include "neon_repacked.h"
#include "neon_rows_low.h"

namespace specee::small_batch {
namespace {

template <bool i8mm, int N> Kernel kernel_for(int type, specee_layout layout) {
    const bool four  = layout == SPECEE_REPACKED_4X4 || layout == SPECEE_REPACKED_4X8;
    const bool eight = layout == SPECEE_REPACKED_8X4 || layout == SPECEE_REPACKED_8X8;
    const bool by_8  = layout == SPECEE_REPACKED_4X8 || layout == SPECEE_REPACKED_8X8;
    if (layout == SPECEE_ROWS) {
        switch (type) {
            case GGML_TYPE_Q4_0: return multiply_32<Q4_0, N>;
            case GGML_TYPE_Q4_1: return multiply_32<Q4_1, N>;
            case GGML_TYPE_Q5_0: return multiply_32<Q5_0, N>;
            case GGML_TYPE_Q5_1: return multiply_32<Q5_1, N>;
            case GGML_TYPE_Q8_0: return multiply_32<Q8_0, N>;
            case GGML_TYPE_IQ4_NL: return multiply_looked_up<IQ4_NL, N>;
            case GGML_TYPE_MXFP4: return multiply_looked_up<MXFP4, N>;
            case GGML_TYPE_Q2_K: return multiply_k16<Q2_K, N>;
            case GGML_TYPE_Q3_K: return multiply_k16<Q3_K, N>;
            case GGML_TYPE_IQ4_XS: return multiply_k16<IQ4_XS, N>;
            case GGML_TYPE_Q4_K: return multiply_k<Q4_K, N>;
            case GGML_TYPE_Q5_K: return multiply_k<Q5_K, N>;
            case GGML_TYPE_Q6_K: return multiply_q6_k<N>;
            default: return nullptr;
        }
    }
    if (four && type == GGML_TYPE_Q4_0) {
        return by_8 ? multiply_group_32<GroupQ4_0, i8mm, 8, N> : multiply_group_32<GroupQ4_0, false, 4, N>;
    }
    if (four && type == GGML_TYPE_Q8_0) {
        return by_8 ? multiply_group_32<GroupQ8_0, i8mm, 8, N> : multiply_group_32<GroupQ8_0, false, 4, N>;
    }
    if (layout == SPECEE_REPACKED_4X4 && type == GGML_TYPE_IQ4_NL) {
        return multiply_group_32<GroupIQ4_NL, false, 4, N>;
    }
    if (layout == SPECEE_REPACKED_4X4 && type == GGML_TYPE_MXFP4) {
        return multiply_group_32<GroupMXFP4, false, 4, N>;
    }
    if (eight && type == GGML_TYPE_Q4_K) {
        return by_8 ? multiply_group_k<GroupQ4_K, i8mm, 8, N> : multiply_group_k<GroupQ4_K, false, 4, N>;
    }
    if (eight && type == GGML_TYPE_Q5_K) {
        return by_8 ? multiply_group_k<GroupQ5_K, i8mm, 8, N> : multiply_group_k<GroupQ5_K, false, 4, N>;
    }
    if (eight && type == GGML_TYPE_Q6_K) {
        return by_8 ? multiply_group_q6_k<i8mm, 8, N> : multiply_group_q6_k<false, 4, N>;
    }
    return nullptr;
}

template <bool i8mm> Kernel find(int type, specee_layout layout, int64_t n_rows) {
    return for_rows(n_rows, [=](auto n) { return kernel_for<i8mm, decltype(n)::value>(type, layout); });
}

} // namespace
} // namespace specee::small_batch
