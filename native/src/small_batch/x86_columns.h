// Our own layout: tiles of 16 weight rows, as many bytes as in the file. Four neighbouring weights of a row are the 32
// bits that they are in the file, and the same four of 16 rows stand together in a vector, so that one instruction
// multiplies 16 weight rows by four numbers. Scales follow, 16 together.
//
// ggml's kernels for rows as in the file add eight partial sums a row as floats, one for each four of 32 weights. Here
// a partial sum is a vector of 16 rows: "lane" below means one of those eight.
#pragma once

#include "ggml.h"
#include "x86_columns_256_repacked.h"

namespace specee::small_batch {
namespace {

template <int N> ColumnKernel column_kernel(int type, bool as_batch) {
    const auto of_32 = [](auto t) -> ColumnKernel {
        using T = decltype(t);
        return { sizeof(Row32<T, N>), pack_columns_32<T, N>, multiply_columns_32<T, N> };
    };
    const auto repacked_32 = [](auto t) -> ColumnKernel {
        using T = decltype(t);
        return { sizeof(TileRows32<N>), pack_tile_rows_32<T, N>, multiply_columns_repacked<T, N> };
    };
    const auto of_256 = [as_batch](auto t) -> ColumnKernel {
        using T   = decltype(t);
        using Row = typename T::RowBlock;
        return { N * sizeof(Row), pack_columns_256<Row, N>,
                 as_batch ? multiply_columns_256<T, N, true> : multiply_columns_256<T, N, false> };
    };
    const auto repacked_256 = [](Kernel multiply) -> ColumnKernel {
        return { N * sizeof(block_q8_K), pack_columns_256<block_q8_K, N>, multiply };
    };
    switch (type) {
        case GGML_TYPE_Q4_0: return repacked_32(Q4_0Columns());
        case GGML_TYPE_Q4_1: return of_32(Q4_1Columns());
        case GGML_TYPE_Q5_0: return of_32(Q5_0Columns());
        case GGML_TYPE_Q5_1: return of_32(Q5_1Columns());
        case GGML_TYPE_Q8_0: return of_32(Q8_0Columns());
        case GGML_TYPE_IQ4_NL: return repacked_32(IQ4_NLColumns());
        case GGML_TYPE_MXFP4: return repacked_32(MXFP4Columns());
        case GGML_TYPE_Q2_K:
            return repacked_256(as_batch ? multiply_columns_q2_k<N, true> : multiply_columns_q2_k<N, false>);
        case GGML_TYPE_Q3_K: return of_256(Q3_KColumns());
        case GGML_TYPE_Q4_K:
            return repacked_256(as_batch ? multiply_columns_q4_k<N, true> : multiply_columns_q4_k<N, false>);
        case GGML_TYPE_Q5_K: return of_256(Q5_KColumns());
        case GGML_TYPE_Q6_K: return of_256(Q6_KColumns());
        case GGML_TYPE_IQ4_XS: return of_256(IQ4_XSColumns());
        default: return {};
    }
}

} // namespace
} // namespace specee::small_batch
