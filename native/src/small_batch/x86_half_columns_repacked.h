// Half tiles of the types with a scale for each 32 weights that ggml repacks, and whose products of 32 weights it adds
// before they become floats: Q4_0, IQ4_NL, MXFP4.
#pragma once

#include "x86_half_tiles.h"

namespace specee::small_batch {
namespace {

// weights(half, v, w): lanes v and v + 4. Without VNNI products are added in 16 bits, where n_fit of two each fit.
template <class V> struct HalfQ4_0 {
    using RowBlock                = block_q8_0;
    static constexpr bool has_min = false, is_signed = false;
    static constexpr int  bytes = 16 * sizeof(block_q4_0), offset = 8, n_fit = 8;
    static __m256         scales(const char * tile, int half) { return eight_halves_at(tile + 256 + 16 * half); }
    static void weights(const char * half, int v, __m256i * w) { load_half_nibbles(half + 64 * v, &w[0], &w[1]); }
};
template <class V> struct HalfMXFP4 : HalfQ4_0<V> {
    static constexpr int    bytes = 16 * sizeof(block_mxfp4), offset = 12, n_fit = 4;
    static constexpr Values values = raised(fp4_values, offset);
    static __m256           scales(const char * tile, int half) { return eight_exponents_at(tile + 256 + 8 * half); }
    static void             weights(const char * half, int v, __m256i * w) {
        HalfQ4_0<V>::weights(half, v, w);
        each<2>([&](auto k) { w[k] = look_up_half(values, w[k]); });
    }
};
template <class V> struct HalfIQ4_NL : HalfQ4_0<V> { // signed where two products of unsigned ones do not fit
    static constexpr bool   is_signed = !V::vnni;
    static constexpr int    offset    = is_signed ? 0 : 128;
    static constexpr Values values    = raised(iq4_values, offset);
    static void             weights(const char * half, int v, __m256i * w) {
        HalfQ4_0<V>::weights(half, v, w);
        each<2>([&](auto k) { w[k] = look_up_half(values, w[k]); });
    }
};

// Rows from..from + R and half H of one tile.
template <class V, class T, int N, int from, int R, int... H>
inline void add_half_tile(const char * tile, const TileRows32<N> & row, __m256 (*acc)[N],
                          std::integer_sequence<int, H...>) {
    constexpr int n_h = sizeof...(H), halves[] = { H... };
    __m256i       sums[n_h][R];
    if constexpr (V::vnni || T::is_signed) {
        each<R>([&](auto i) { each<n_h>([&](auto h) { sums[h][i] = _mm256_set1_epi32(row.start[from + i]); }); });
        each<4>([&](auto v) {
            __m256i w[n_h][2];
            each<n_h>([&](auto h) { T::weights(tile + 32 * halves[h], v, w[h]); });
            each<R>([&](auto i) {
                each<2>([&](auto k) {
                    const __m256i x = four_for_half(row.x[from + i] + 4 * v + 16 * k);
                    each<n_h>([&](auto h) {
                        if constexpr (T::is_signed) {
                            sums[h][i] = _mm256_add_epi32(sums[h][i], V::signed_dot(w[h][k], x));
                        } else {
                            sums[h][i] = V::dot(sums[h][i], w[h][k], x);
                        }
                    });
                });
            });
        });
    } else {
        constexpr int n_groups = 8 / T::n_fit; // of products that are added in 16 bits
        each<n_groups>([&](auto g) {
            __m256i pairs[n_h][R];
            each<4 / n_groups>([&](auto k) {
                constexpr int v = 4 / n_groups * g + k;
                __m256i       w[n_h][2];
                each<n_h>([&](auto h) { T::weights(tile + 32 * halves[h], v, w[h]); });
                each<R>([&](auto i) {
                    each<2>([&](auto j) {
                        const __m256i x = four_for_half(row.x[from + i] + 4 * v + 16 * j);
                        each<n_h>([&](auto h) {
                            const __m256i two = _mm256_maddubs_epi16(w[h][j], x);
                            pairs[h][i]       = k == 0 && j == 0 ? two : _mm256_add_epi16(pairs[h][i], two);
                        });
                    });
                });
            });
            each<R>([&](auto i) {
                each<n_h>([&](auto h) {
                    const __m256i before = g == 0 ? _mm256_set1_epi32(row.start[from + i]) : sums[h][i];
                    sums[h][i]           = _mm256_add_epi32(before, V::sum(pairs[h][i]));
                });
            });
        });
    }
    each<n_h>([&](auto h) {
        const __m256 d = T::scales(tile, halves[h]);
        each<R>([&](auto i) {
            const __m256 scale       = _mm256_mul_ps(d, _mm256_set1_ps(row.d[from + i]));
            acc[halves[h]][from + i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[h][i]), scale, acc[halves[h]][from + i]);
        });
    });
}

// The sums of four rows with both halves fit into 16 registers. Without VNNI single rows are faster (measured).
template <class V, class T, int N, int from = 0>
inline void add_tile(const char * tile, const TileRows32<N> & row, __m256 (*acc)[N]) {
    constexpr int most = V::vnni ? 4 : 1, R = N - from < most ? N - from : most;
    add_half_tile<V, T, N, from, R>(tile, row, acc, std::integer_sequence<int, 0, 1>());
    if constexpr (from + R < N) {
        add_tile<V, T, N, from + R>(tile, row, acc);
    }
}

template <class V, class T, int N> [[gnu::flatten]] void multiply_half_columns_repacked(const specee_product & p) {
    const int64_t n_blocks = p.n_in / 32;
    const auto *  rows     = static_cast<const TileRows32<N> *>(p.rows);
    const char *  tile     = static_cast<const char *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += tile_rows) {
        __m256 acc[2][N];
        each<N>([&](auto i) { acc[0][i] = acc[1][i] = _mm256_setzero_ps(); });
        for (int64_t b = 0; b < n_blocks; ++b, tile += T::bytes) {
            prefetch(tile, T::bytes);
            add_tile<V, T, N>(tile, rows[b], acc);
        }
        each<N>([&](auto i) {
            each<2>([&](auto h) {
                _mm256_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r + half_rows * h), acc[h][i]);
            });
        });
    }
}

} // namespace
} // namespace specee::small_batch
