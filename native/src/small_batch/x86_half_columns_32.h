// Half tiles of the types with a scale for each 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.
#pragma once

#include "x86_half_tiles.h"

namespace specee::small_batch {
namespace {

template <class V> struct HalfQ8_0 { // weights are stored + 128
    using Block                   = block_q8_0;
    using RowBlock                = block_q8_0;
    static constexpr bool has_min = false;
    static constexpr int  bytes = 16 * sizeof(Block), d_at = 512, offset = V::vnni ? 128 : 0;
    static void           load(const char * tile, int v, __m256i * w) {
        for (int h = 0; h < 2; ++h) {
            w[h] = half_at(tile + 128 * v + 64 * h);
            if constexpr (!V::vnni) {
                w[h] = _mm256_xor_si256(w[h], _mm256_set1_epi8(-128));
            }
        }
    }
};

template <class V, class T, int N> [[gnu::flatten]] void multiply_half_columns_32(const specee_product & p) {
    const int64_t n_blocks = p.n_in / 32;
    const auto *  rows     = static_cast<const Row32<T, N> *>(p.rows);
    const char *  tile     = static_cast<const char *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += half_rows) {
        __m256       acc[N][n_lanes];
        const char * at = tile + n_blocks * T::bytes * (r / tile_rows);
        each<N>([&](auto i) { each<n_lanes>([&](auto k) { acc[i][k] = _mm256_setzero_ps(); }); });
        for (int64_t b = 0; b < n_blocks; ++b, at += T::bytes) {
            const char * const half = at + 32 * (r % tile_rows / half_rows);
            const __m256       d    = eight_halves_at(at + T::d_at + 16 * (r % tile_rows / half_rows));
            each<4>([&](auto v) {
                __m256i w[2];
                T::load(half, v, w);
                each<N>([&](auto i) {
                    const __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(rows[b].d[i]));
                    each<2>([&](auto h) {
                        constexpr int lane = v + 4 * h;
                        const __m256i x    = four_for_half(rows[b].x[i] + 4 * lane);
                        __m256i       dot;
                        if constexpr (V::vnni) {
                            dot = V::sum(V::dot(_mm256_set1_epi32(rows[b].start[i][lane]), w[h], x));
                        } else {
                            dot = V::signed_dot(w[h], x);
                        }
                        acc[i][lane] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dot), acc[i][lane]);
                    });
                });
            });
        }
        each<N>([&](auto i) {
            __m256 pair[4];
            each<4>([&](auto k) { pair[k] = _mm256_add_ps(acc[i][k], acc[i][k + 4]); });
            const __m256 sum = _mm256_add_ps(_mm256_add_ps(pair[0], pair[2]), _mm256_add_ps(pair[1], pair[3]));
            _mm256_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r), sum);
        });
    }
}

} // namespace
} // namespace specee::small_batch
