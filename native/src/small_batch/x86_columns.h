// Our own layout: tiles of 16 weight rows, as many bytes as in the file. Four neighbouring weights of a row are the 32
// bits that they are in the file, and the same four of 16 rows stand together in a vector, so that one instruction
// multiplies 16 weight rows by four numbers. Scales follow, 16 together.
//
// ggml's kernels for rows as in the file add eight partial sums a row as floats, one for each four of 32 weights. Here
// a partial sum is a vector of 16 rows: "lane" below means one of those eight.
#pragma once

#include "ggml.h"
#include "x86_columns_256.h"
#include "x86_columns_32.h"

namespace specee::small_batch {
namespace {

template <int N> ColumnKernel column_kernel(int type, bool as_batch) {
    const auto of_32 = [](auto t) -> ColumnKernel {
        using T = decltype(t);
        return { sizeof(Row32<T, N>), pack_columns_32<T, N>, multiply_columns_32<T, N> };
    };
    const auto of_256 = [as_batch](auto t) -> ColumnKernel {
        using T = decltype(t);
        return { N * sizeof(block_q8_K), pack_columns_256<N>,
                 as_batch ? multiply_columns_256<T, N, true> : multiply_columns_256<T, N, false> };
    };
    switch (type) {
        case GGML_TYPE_Q4_0:
            return { sizeof(TileRows32<N>), pack_tile_rows_32<Q4_0Columns, N>, multiply_columns_q4_0<N> };
        case GGML_TYPE_Q4_1: return of_32(Q4_1Columns());
        case GGML_TYPE_Q5_0: return of_32(Q5_0Columns());
        case GGML_TYPE_Q8_0: return of_32(Q8_0Columns());
        case GGML_TYPE_Q4_K:
            return { N * sizeof(block_q8_K), pack_columns_256<N>,
                     as_batch ? multiply_columns_q4_k<N, true> : multiply_columns_q4_k<N, false> };
        case GGML_TYPE_Q5_K: return of_256(Q5_KColumns());
        case GGML_TYPE_Q6_K: return of_256(Q6_KColumns());
        default: return {};
    }
}

} // namespace
} // namespace specee::small_batch
