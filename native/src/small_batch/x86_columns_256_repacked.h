// Columns of the types with a scale for each 256 weights that ggml repacks: Q2_K, Q4_K.
#pragma once

#include "x86_columns_256.h"

namespace specee::small_batch {
namespace {

// Q4_K: for each 64 weights eight vectors of nibbles. As floats ggml adds once for 256 weights, or in batches once for
// 64.
template <int N, bool as_batch> [[gnu::flatten]] void multiply_columns_q4_k(const specee_product & p) {
    constexpr int bytes = 16 * sizeof(block_q4_K), scales_at = 2048, d_at = scales_at + 192;
    const int64_t n_blocks = p.n_in / QK_K;
    const auto *  rows     = static_cast<const block_q8_K *>(p.rows);
    const char *  tile     = static_cast<const char *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += tile_rows) {
        __m512 acc[N], mins[N];
        each<N>([&](auto i) { acc[i] = mins[i] = _mm512_setzero_ps(); });
        for (int64_t b = 0; b < n_blocks; ++b, tile += bytes) {
            const block_q8_K * const row = rows + b * N;
            __m512i                  scale[4], for_sums[8], total[N], min_total[N];
            const __m512             d = halves_at(tile + d_at), dmin = halves_at(tile + d_at + 32);
            load_k_scales(tile + scales_at, scale, for_sums);
            each<N>([&](auto i) { total[i] = min_total[i] = _mm512_setzero_si512(); });
            const auto add = [&] {
                each<N>([&](auto i) {
                    const __m512 row_d = _mm512_set1_ps(row[i].d);
                    acc[i]             = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[i]), _mm512_mul_ps(d, row_d), acc[i]);
                    mins[i]  = _mm512_fmadd_ps(_mm512_cvtepi32_ps(min_total[i]), _mm512_mul_ps(dmin, row_d), mins[i]);
                    total[i] = min_total[i] = _mm512_setzero_si512();
                });
            };
            for (int pair = 0; pair < 4; ++pair) {
                if constexpr (N > 1) { // see multiply_columns_256
                    for (int at = 0; at < bytes / 4; at += 64) {
                        _mm_prefetch(tile + columns_ahead + bytes / 4 * pair + at, _MM_HINT_T0);
                    }
                }
                for (int half = 0; half < 2; ++half) {
                    __m512i low[4], high[4];
                    each<4>([&](auto v) { load_nibbles(tile + 512 * pair + 256 * half + 64 * v, &low[v], &high[v]); });
                    each<N>([&](auto i) { // 16 products of 15 * 127 fit into 16 bits
                        const int8_t * const x    = row[i].qs + 64 * pair + 16 * half;
                        const __m512i        zero = _mm512_setzero_si512();
                        const __m512i        two  = side_by_side(dot<4>(zero, low, x), dot<4>(zero, high, x + 32));
                        total[i]                  = _mm512_dpwssd_epi32(total[i], two, scale[pair]);
                    });
                }
                each<N>([&](auto i) {
                    min_total[i] = add_sums(min_total[i], for_sums[2 * pair], row[i], 2 * pair);
                    min_total[i] = add_sums(min_total[i], for_sums[2 * pair + 1], row[i], 2 * pair + 1);
                });
                if constexpr (as_batch) {
                    add();
                }
            }
            if constexpr (!as_batch) {
                add();
            }
        }
        each<N>([&](auto i) {
            _mm512_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r), _mm512_sub_ps(acc[i], mins[i]));
        });
    }
}

// Q2_K: for each 128 weights eight vectors, whose bytes hold weights that are 32 apart. As floats ggml adds once for
// 256 weights, or in batches once for 128.
template <int N, bool as_batch> [[gnu::flatten]] void multiply_columns_q2_k(const specee_product & p) {
    constexpr int bytes = 16 * sizeof(block_q2_K), scales_at = 1024, d_at = scales_at + 256;
    const int64_t n_blocks = p.n_in / QK_K;
    const auto *  rows     = static_cast<const block_q8_K *>(p.rows);
    const char *  tile     = static_cast<const char *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += tile_rows) {
        __m512 acc[N], mins[N];
        each<N>([&](auto i) { acc[i] = mins[i] = _mm512_setzero_ps(); });
        for (int64_t b = 0; b < n_blocks; ++b, tile += bytes) {
            const block_q8_K * const row = rows + b * N;
            __m512i                  total[N], min_total[N];
            const __m512             d = halves_at(tile + d_at), dmin = halves_at(tile + d_at + 32);
            each<N>([&](auto i) { total[i] = min_total[i] = _mm512_setzero_si512(); });
            const auto add = [&] {
                each<N>([&](auto i) {
                    const __m512 row_d = _mm512_set1_ps(row[i].d);
                    acc[i]             = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[i]), _mm512_mul_ps(d, row_d), acc[i]);
                    mins[i]  = _mm512_fmadd_ps(_mm512_cvtepi32_ps(min_total[i]), _mm512_mul_ps(dmin, row_d), mins[i]);
                    total[i] = min_total[i] = _mm512_setzero_si512();
                });
            };
            for (int half = 0; half < 2; ++half) {
                if constexpr (N > 1) { // see multiply_columns_256
                    for (int at = 0; at < bytes / 2; at += 64) {
                        _mm_prefetch(tile + columns_ahead + bytes / 2 * half + at, _MM_HINT_T0);
                    }
                }
                __m512i raw[8];
                each<8>([&](auto v) { raw[v] = vector_at(tile + 512 * half + 64 * v); });
                each<4>([&](auto j) { // 32 weights
                    const __m512i four = _mm512_set1_epi32(15), eight_up = _mm512_set1_epi32(0xf0000);
                    const __m512i packed = vector_at(tile + scales_at + 128 * half + 64 * (j / 2));
                    const __m512i both   = _mm512_srli_epi32(packed, 16 * (j % 2)); // scales and mins of 16 weights
                    const __m512i scale = or_masked(_mm512_and_si512(both, four), _mm512_slli_epi32(both, 8), eight_up);
                    const __m512i min   = or_masked(_mm512_and_si512(_mm512_srli_epi32(both, 4), four),
                                                    _mm512_slli_epi32(both, 4), eight_up);
                    __m512i       w[8];
                    each<8>([&](auto v) {
                        w[v] = _mm512_and_si512(_mm512_srli_epi16(raw[v], 2 * j), _mm512_set1_epi8(3));
                    });
                    each<N>([&](auto i) { // 16 products of 3 * 127 fit into 16 bits
                        const int8_t * const x    = row[i].qs + 128 * half + 32 * j;
                        const __m512i        zero = _mm512_setzero_si512();
                        const __m512i        two  = side_by_side(dot<4>(zero, w, x), dot<4>(zero, w + 4, x + 16));
                        total[i]                  = _mm512_dpwssd_epi32(total[i], two, scale);
                        min_total[i]              = add_sums(min_total[i], min, row[i], 4 * half + j);
                    });
                });
                if constexpr (as_batch) {
                    add();
                }
            }
            if constexpr (!as_batch) {
                add();
            }
        }
        each<N>([&](auto i) {
            _mm512_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r), _mm512_sub_ps(acc[i], mins[i]));
        });
    }
}

} // namespace
} // namespace specee::small_batch
