// Columns (x86_columns.h) for CPUs with vectors of 256 bits: the same tiles, half a tile at a time. V: Avx2 or AvxVnni
// of simd_x86.h, which collect products of two or four numbers.
#pragma once

#include "ggml.h"
#include "x86_half_columns_32.h"
#include "x86_half_columns_repacked.h"

namespace specee::small_batch {
namespace {

template <class V, int N> ColumnKernel half_column_kernel(int type, bool as_batch) {
    (void) as_batch;
    const auto of_32 = [](auto t) -> ColumnKernel {
        using T = decltype(t);
        return { sizeof(HalfRow32<T, N>), pack_half_columns_32<V, T, N>, multiply_half_columns_32<V, T, N> };
    };
    const auto repacked_32 = [](auto t) -> ColumnKernel {
        using T = decltype(t);
        return { sizeof(TileRows32<N>), pack_tile_rows_32<T, N>, multiply_half_columns_repacked<V, T, N> };
    };
    switch (type) {
        case GGML_TYPE_Q4_0: return repacked_32(HalfQ4_0<V>());
        case GGML_TYPE_Q4_1: return of_32(HalfQ4_1<V>());
        case GGML_TYPE_Q5_0: return of_32(HalfQ5_0<V>());
        case GGML_TYPE_Q5_1: return of_32(HalfQ5_1<V>());
        case GGML_TYPE_Q8_0: return of_32(HalfQ8_0<V>());
        case GGML_TYPE_IQ4_NL: return repacked_32(HalfIQ4_NL<V>());
        case GGML_TYPE_MXFP4: return repacked_32(HalfMXFP4<V>());
        default: return {};
    }
}

template <class V> ColumnKernel find_half_columns(int type, int64_t n_rows, bool as_batch) {
    return for_rows(n_rows, [=](auto n) { return half_column_kernel<V, decltype(n)::value>(type, as_batch); });
}

} // namespace
} // namespace specee::small_batch
