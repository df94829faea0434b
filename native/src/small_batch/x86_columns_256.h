// Columns of the types with a scale for each 256 weights that ggml multiplies as rows: Q3_K, Q5_K, Q6_K, IQ4_XS.
#pragma once

#include "x86_columns_32.h"

#include <type_traits>

namespace specee::small_batch {
namespace {

// sum + 16-bit numbers of each weight row times the k-th two sums of 16 activations.
inline __m512i add_sums(__m512i sum, __m512i two, const block_q8_K & row, int k) {
    return _mm512_dpwssd_epi32(sum, two, four_of(reinterpret_cast<const int8_t *>(row.bsums + 2 * k)));
}

// Two sums that fit into 16 bits, side by side, for one product with two scales. A shift and a blend run beside the
// products; one shuffle does not on Zen 4.
inline __m512i side_by_side(__m512i low, __m512i high) {
    return _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_slli_epi32(high, 16));
}

// A lane of Q6_K: for each half of the 256 weights two vectors of nibbles and one of upper bits.
struct Q6_KColumns {
    using Block                   = block_q6_K;
    using RowBlock                = block_q8_K;
    static constexpr bool has_min = false, sums_in_lanes = true, is_wide = false;
    static constexpr int  bytes = 16 * sizeof(Block), scales_at = 3072, d_at = scales_at + 256, n_scales = 2;

    static void load(const char * tile, int lane, __m512i * w) {
        const __m512i two_bits = _mm512_set1_epi8(0x30);
        each<2>([&](auto half) {
            const char * const at   = tile + 384 * lane + 192 * half;
            const __m512i      bits = vector_at(at + 128);
            load_nibbles(at, &w[4 * half], &w[4 * half + 2]);
            load_nibbles(at + 64, &w[4 * half + 1], &w[4 * half + 3]);
            w[4 * half]     = or_masked(w[4 * half], _mm512_slli_epi16(bits, 4), two_bits);
            w[4 * half + 1] = or_masked(w[4 * half + 1], _mm512_slli_epi16(bits, 2), two_bits);
            w[4 * half + 2] = or_masked(w[4 * half + 2], bits, two_bits);
            w[4 * half + 3] = or_masked(w[4 * half + 3], _mm512_srli_epi16(bits, 2), two_bits);
        });
    }
    // scale[j][k]: of lanes 4j to 4j + 3 in the 2k-th and the next 32 weights, 16 bits each
    // for_sums[b]: what the sums of each 16 activations are to be multiplied with, for lane b (stored weights are 32
    // too large)
    static void load_scales(const char * tile, __m512i (*scale)[4], __m512i * for_sums) {
        each<4>([&](auto k) {
            __m512i s[4];
            each<4>([&](auto i) {
                const auto * at = reinterpret_cast<const __m128i *>(tile + scales_at + 64 * k + 16 * i);
                s[i]            = _mm512_cvtepi8_epi32(_mm_loadu_si128(at));
            });
            scale[0][k] = _mm512_mask_blend_epi16(0xaaaaaaaa, s[0], _mm512_slli_epi32(s[2], 16));
            scale[1][k] = _mm512_mask_blend_epi16(0xaaaaaaaa, s[1], _mm512_slli_epi32(s[3], 16));
            each<2>([&](auto i) {
                const __m512i two = _mm512_mask_blend_epi16(0xaaaaaaaa, s[2 * i], _mm512_slli_epi32(s[2 * i + 1], 16));
                for_sums[2 * k + i] = _mm512_mullo_epi16(two, _mm512_set1_epi16(-32));
            });
        });
    }
};

// The 6-bit scales and mins of Q4_K and Q5_K: scale[k] of the 2k-th and the next 32 weights, 16 bits each; for_sums[b]:
// the min of the b-th 32 weights, twice, for the sums of 16 activations.
inline void load_k_scales(const char * packed, __m512i * scale, __m512i * for_sums) {
    const __m512i six = _mm512_set1_epi32(0x3f3f3f3f), four = _mm512_set1_epi32(0x0f0f0f0f);
    const __m512i two = _mm512_set1_epi32(0x30303030), byte = _mm512_set1_epi32(255);
    const __m512i u0 = vector_at(packed), u1 = vector_at(packed + 64);
    const __m512i u2   = vector_at(packed + 128); // as scales_and_mins, for 16 rows
    const __m512i s[2] = { _mm512_and_si512(u0, six),
                           or_masked(_mm512_and_si512(u2, four), _mm512_srli_epi32(u0, 2), two) };
    const __m512i m[2] = { _mm512_and_si512(u1, six),
                           or_masked(_mm512_and_si512(_mm512_srli_epi32(u2, 4), four), _mm512_srli_epi32(u1, 2), two) };
    each<4>([&](auto k) {
        const __m512i both = _mm512_srli_epi32(s[k / 2], 16 * (k % 2)); // in the lower two bytes
        scale[k] = or_masked(_mm512_and_si512(both, byte), _mm512_slli_epi32(both, 8), _mm512_set1_epi32(0xff0000));
    });
    each<8>([&](auto b) {
        const __m512i min = _mm512_and_si512(_mm512_srli_epi32(m[b / 4], 8 * (b % 4)), byte);
        for_sums[b]       = _mm512_or_si512(min, _mm512_slli_epi32(min, 16));
    });
}

// A lane of Q5_K: four vectors of nibbles and one of fifth bits.
struct Q5_KColumns {
    using Block                   = block_q5_K;
    using RowBlock                = block_q8_K;
    static constexpr bool has_min = true, sums_in_lanes = false, is_wide = false;
    static constexpr int  bytes = 16 * sizeof(Block), scales_at = 2560, d_at = scales_at + 192, n_scales = 1;

    static void load(const char * tile, int lane, __m512i * w) {
        const char * const at   = tile + 320 * lane;
        const __m512i      bits = vector_at(at + 256), sixteen = _mm512_set1_epi8(16);
        each<4>([&](auto k) { load_nibbles(at + 64 * k, &w[2 * k], &w[2 * k + 1]); });
        each<8>([&](auto b) {
            constexpr int up = 4 - b;
            w[b]             = or_masked(
                w[b], up > 0 ? _mm512_slli_epi16(bits, up > 0 ? up : 0) : _mm512_srli_epi16(bits, up > 0 ? 0 : -up),
                sixteen);
        });
    }
    static void load_scales(const char * tile, __m512i (*scale)[4], __m512i * for_sums) {
        load_k_scales(tile + scales_at, scale[0], for_sums);
    }
};

// A lane of Q3_K: for each half of the 256 weights a vector of lower bits, and one of third bits for both.
struct Q3_KColumns {
    using Block                   = block_q3_K;
    using RowBlock                = StartedBlock<4>;
    static constexpr bool has_min = false, sums_in_lanes = false, is_wide = false;
    static constexpr int  bytes = 16 * sizeof(Block), scales_at = 1536, d_at = scales_at + 192, n_scales = 2;

    static void load(const char * tile, int lane, __m512i * w) {
        const char * const at   = tile + 192 * lane;
        const __m512i      bits = vector_at(at + 128), two_bits = _mm512_set1_epi8(3), third = _mm512_set1_epi8(4);
        each<8>([&](auto b) {
            constexpr int up    = 2 - b;
            const __m512i lower = _mm512_srli_epi16(vector_at(at + 64 * (b / 4)), 2 * (b % 4));
            const __m512i upper =
                up > 0 ? _mm512_slli_epi16(bits, up > 0 ? up : 0) : _mm512_srli_epi16(bits, up > 0 ? 0 : -up);
            w[b] = or_masked(_mm512_and_si512(lower, two_bits), upper, third);
        });
    }
    static void load_scales(const char * tile, __m512i (*scale)[4], __m512i *) {
        const __m512i four = _mm512_set1_epi8(15), two = _mm512_set1_epi8(0x30);
        const __m512i u[2] = { vector_at(tile + scales_at), vector_at(tile + scales_at + 64) };
        const __m512i up   = vector_at(tile + scales_at + 128);
        each<4>([&](auto k) {
            constexpr int by  = 4 - 2 * k; // of the upper two bits
            const __m512i low = _mm512_srli_epi16(u[k % 2], 4 * (k / 2));
            const __m512i high =
                by > 0 ? _mm512_slli_epi16(up, by > 0 ? by : 0) : _mm512_srli_epi16(up, by > 0 ? 0 : -by);
            const __m512i s = _mm512_sub_epi8(or_masked(_mm512_and_si512(low, four), high, two),
                                              _mm512_set1_epi8(32)); // of 16 weights each: four of a row
            scale[0][k]     = _mm512_srai_epi16(_mm512_slli_epi16(s, 8), 8);
            scale[1][k]     = _mm512_srai_epi16(s, 8);
        });
    }
};

// Lanes v and v + 4 of IQ4_XS: eight vectors of nibbles. Its sums of four do not fit into 16 bits.
struct IQ4_XSColumns {
    using Block                     = block_iq4_xs;
    static constexpr bool   has_min = false, sums_in_lanes = false, is_wide = true;
    static constexpr int    bytes = 16 * sizeof(Block), scales_at = 2048, d_at = scales_at + 96, n_scales = 2;
    static constexpr int    offset = 128;
    static constexpr Values values = raised(iq4_values, offset);
    using RowBlock                 = StartedBlock<offset>;

    static void load(const char * tile, int lane, __m512i * w) {
        const char * const at    = tile + 512 * (lane % 4);
        const __m128i      shift = _mm_cvtsi32_si128(lane < 4 ? 0 : 4);
        each<8>([&](auto b) {
            const __m512i nibbles = _mm512_srl_epi16(vector_at(at + 64 * b), shift);
            w[b]                  = look_up(values, _mm512_and_si512(nibbles, _mm512_set1_epi8(15)));
        });
    }
    // scale[j][k]: of the 4j + k-th 32 weights, 32 bits
    static void load_scales(const char * tile, __m512i (*scale)[4], __m512i *) {
        const __m512i low = vector_at(tile + scales_at), four = _mm512_set1_epi32(15), two = _mm512_set1_epi32(0x30);
        const __m512i up = _mm512_slli_epi32(_mm512_cvtepu16_epi32(load_bytes(tile + scales_at + 64)), 4);
        each<8>([&](auto b) {
            const __m512i six =
                or_masked(_mm512_and_si512(_mm512_srli_epi32(low, 4 * b), four), _mm512_srli_epi32(up, 2 * b), two);
            scale[b / 4][b % 4] = _mm512_sub_epi32(six, _mm512_set1_epi32(32));
        });
    }
};

// as_batch: with the additions of ggml's kernel for batches, which rounds once for 256 weights.
template <class T, int N, bool as_batch> [[gnu::flatten]] void multiply_columns_256(const specee_product & p) {
    const int64_t n_blocks = p.n_in / QK_K;
    const auto *  rows     = static_cast<const typename T::RowBlock *>(p.rows);
    const char *  tile     = static_cast<const char *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += tile_rows) {
        __m512 acc[as_batch ? 1 : n_lanes][N], mins[N];
        for (auto & lane : acc) {
            each<N>([&](auto i) { lane[i] = _mm512_setzero_ps(); });
        }
        each<N>([&](auto i) { mins[i] = _mm512_setzero_ps(); });
        for (int64_t b = 0; b < n_blocks; ++b, tile += T::bytes) {
            const auto * const row = rows + b * N;
            __m512i            scale[T::n_scales][4], for_sums[8], total[N], min_total[N];
            const __m512       d = halves_at(tile + T::d_at);
            T::load_scales(tile, scale, for_sums);
            each<N>([&](auto i) {
                total[i] = min_total[i] = _mm512_setzero_si512();
                if constexpr (T::has_min) {
                    each<8>([&](auto k) { min_total[i] = add_sums(min_total[i], for_sums[k], row[i], k); });
                }
            });
            for (int lane = 0; lane < n_lanes; ++lane) {
                if constexpr (N > 1) { // one row is as fast as the CPU reads ahead by itself, or slower
                    for (int at = 0; at < T::bytes / n_lanes; at += 64) {
                        _mm_prefetch(tile + columns_ahead + T::bytes / n_lanes * lane + at, _MM_HINT_T0);
                    }
                }
                constexpr int n_scales = T::is_wide ? 8 : 4; // of a lane
                __m512i       w[8], s[n_scales];
                T::load(tile, lane, w);
                each<n_scales>([&](auto k) { s[k] = scale[T::is_wide ? k / 4 : lane * T::n_scales / n_lanes][k % 4]; });
                each<N>([&](auto i) {
                    __m512i    sum    = as_batch ? total[i] : _mm512_setzero_si512();
                    const auto dot_of = [&](int b) {
                        __m512i dot = _mm512_setzero_si512();
                        if constexpr (!std::is_same_v<typename T::RowBlock, block_q8_K>) {
                            dot = _mm512_set1_epi32(row[i].start[b][lane]);
                        }
                        return _mm512_dpbusd_epi32(dot, w[b], four_of(row[i].qs + 32 * b + 4 * lane));
                    };
                    if constexpr (T::sums_in_lanes) {
                        sum = add_sums(sum, for_sums[lane], row[i], lane);
                    }
                    if constexpr (T::is_wide) {
                        each<8>([&](auto b) { sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(dot_of(b), s[b])); });
                    } else { // four products of 63 * 127 fit into 16 bits
                        each<4>([&](auto k) {
                            sum = _mm512_dpwssd_epi32(sum, side_by_side(dot_of(2 * k), dot_of(2 * k + 1)), s[k]);
                        });
                    }
                    if constexpr (as_batch) {
                        total[i] = sum;
                    } else {
                        const __m512 scale_of_both = _mm512_mul_ps(d, _mm512_set1_ps(row[i].d));
                        acc[lane][i] = _mm512_fmadd_ps(scale_of_both, _mm512_cvtepi32_ps(sum), acc[lane][i]);
                    }
                });
            }
            each<N>([&](auto i) {
                const __m512 row_d = _mm512_set1_ps(row[i].d);
                __m512       sum   = _mm512_mul_ps(_mm512_cvtepi32_ps(total[i]), d);
                if constexpr (T::has_min) {
                    const __m512 dmin = halves_at(tile + T::d_at + 32), least = _mm512_cvtepi32_ps(min_total[i]);
                    sum     = _mm512_fnmadd_ps(dmin, least, sum);
                    mins[i] = _mm512_fnmadd_ps(_mm512_mul_ps(row_d, dmin), least, mins[i]);
                }
                if constexpr (as_batch) {
                    acc[0][i] = _mm512_fmadd_ps(sum, row_d, acc[0][i]);
                }
            });
        }
        each<N>([&](auto i) {
            __m512 sum = acc[0][i];
            if constexpr (!as_batch) { // as hsum_float_8
                __m512 pair[4];
                each<4>([&](auto k) { pair[k] = _mm512_add_ps(acc[k][i], acc[k + 4][i]); });
                sum = _mm512_add_ps(_mm512_add_ps(pair[0], pair[2]), _mm512_add_ps(pair[1], pair[3]));
                sum = T::has_min ? _mm512_add_ps(sum, mins[i]) : sum;
            }
            _mm512_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r), sum);
        });
    }
}

} // namespace
} // namespace specee::small_batch
