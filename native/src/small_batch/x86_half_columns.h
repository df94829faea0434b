// Columns (x86_columns.h) for CPUs with vectors of 256 bits: the same tiles, half a tile at a time. V: Avx2 or AvxVnni
// of simd_x86.h, which collect products of two or four numbers.
#pragma once

#include "ggml.h"
#include "x86_half_columns_256_sums.h"
#include "x86_half_columns_32.h"
#include "x86_half_columns_repacked.h"

namespace specee::small_batch {
namespace {

// In two, each for a file of its own: a compiler takes more than a gigabyte for each.
template <class V, int N> ColumnKernel half_columns_of_32(int type) {
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

template <class V, int N> ColumnKernel half_columns_of_256(int type, bool as_batch) {
    // a batch's last rows are taken as four or eight, of which the last one is there again and again
    constexpr int M      = N <= 4 ? 4 : 8;
    const auto    of_256 = [](Kernel multiply) -> ColumnKernel {
        return { N * sizeof(Block256), pack_half_columns_256<N>, multiply };
    };
    const auto of_batch = [](Kernel multiply) -> ColumnKernel {
        return { M * sizeof(Block256), pack_half_columns_256<M>, multiply };
    };
    const auto as_rows = [=](auto t) {
        using T = decltype(t);
        return as_batch ? of_batch(multiply_half_sums<V, T, M, Order::batch_of_rows>)
                        : of_256(multiply_half_lanes<V, T, N>);
    };
    switch (type) {
        case GGML_TYPE_Q4_K:
            return as_batch ? of_batch(multiply_half_sums<V, HalfQ4_K, M, Order::once_for_64>)
                            : of_256(multiply_half_sums<V, HalfQ4_K, N, Order::once_for_256>);
        case GGML_TYPE_Q2_K:
            if (!is_repacked(type)) {
                return as_rows(HalfQ2_K());
            }
            return as_batch ? of_batch(multiply_half_sums<V, HalfQ2_K, M, Order::once_for_128>)
                            : of_256(multiply_half_sums<V, HalfQ2_K, N, Order::once_for_256>);
        case GGML_TYPE_Q3_K: return as_rows(HalfQ3_K());
        case GGML_TYPE_Q5_K: return as_rows(HalfQ5_K());
        case GGML_TYPE_Q6_K: return as_rows(HalfQ6_K());
        case GGML_TYPE_IQ4_XS: return as_rows(HalfIQ4_XS());
        default: return {};
    }
}

template <class V> ColumnKernel find_half_columns_32(int type, int64_t n_rows) {
    return for_rows(n_rows, [=](auto n) { return half_columns_of_32<V, decltype(n)::value>(type); });
}
template <class V> ColumnKernel find_half_columns_256(int type, int64_t n_rows, bool as_batch) {
    return for_rows(n_rows, [=](auto n) { return half_columns_of_256<V, decltype(n)::value>(type, as_batch); });
}

} // namespace
} // namespace specee::small_batch
