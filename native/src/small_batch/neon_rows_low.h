// NEON kernels for rows as in the file, of the types whose weights are looked up or take few bits: IQ4_NL, MXFP4,
// IQ4_XS, Q2_K, Q3_K. Order of additions as in neon_rows.h.
#pragma once

#include "neon_rows.h"

namespace specee::small_batch {
namespace {

// ---- a scale for each 32 weights, whose products are added before they become a float -------------------------------

struct IQ4_NL {
    using Block                            = block_iq4_nl;
    static constexpr const Values & values = iq4_values;
    static float                    scale(const Block & b) { return half_to_float(b.d); }
};

struct MXFP4 {
    using Block                            = block_mxfp4;
    static constexpr const Values & values = fp4_values;
    static float                    scale(const Block & b) { return half_of_power(b.e); }
};

template <class T, int N> void multiply_looked_up(const specee_product & p) {
    const int64_t      n_blocks = p.n_in / 32;
    const int8x16_t    values   = vld1q_s8(T::values.at);
    const block_q8_0 * rows[N];
    for (int i = 0; i < N; ++i) {
        rows[i] = row_of<block_q8_0>(p, i);
    }
    for (int64_t r = 0; r < p.n_out; ++r) {
        const auto * const w       = reinterpret_cast<const typename T::Block *>(static_cast<const char *>(p.weights) +
                                                                                 size_t(r) * p.weights_stride);
        float              sums[N] = {}, first[N], first_scale[N];
        for (int64_t b = 0; b < n_blocks; ++b) {
            const bool        odd = b % 2;
            const uint8x16_t  x   = vld1q_u8(w[b].qs);
            const int8x16x2_t q   = { vqtbl1q_s8(values, vandq_u8(x, vdupq_n_u8(15))),
                                      vqtbl1q_s8(values, vshrq_n_u8(x, 4)) };
            const float       d   = T::scale(w[b]);
            for (int i = 0; i < N; ++i) {
                const float dot   = float(vaddvq_s32(dot_of_32(q, rows[i][b].qs)));
                const float scale = d * half_to_float(rows[i][b].d);
                if (odd) { // ggml adds two blocks at a time
                    sums[i] += std::fma(first_scale[i], first[i], scale * dot);
                } else if (b + 1 < n_blocks) {
                    first[i]       = dot;
                    first_scale[i] = scale;
                } else {
                    sums[i] = std::fma(scale, dot, sums[i]);
                }
            }
        }
        for (int i = 0; i < N; ++i) {
            p.out[size_t(i) * p.out_stride + size_t(r)] = sums[i];
        }
    }
}

// ---- a scale for each 256 weights, and one of few bits for each 16 of them
// -------------------------------------------

struct Q2_K {
    using Block                   = block_q2_K;
    static constexpr bool has_min = true;
    static int8x16_t      scales(const Block & b) { return low_nibbles(vld1q_u8(b.scales)); }
    static int8x16_t      load(const Block & b, int k) { // weights 16k to 16k + 15
        const uint8x16_t x = vld1q_u8(b.qs + 32 * (k / 8) + 16 * (k % 2));
        return vreinterpretq_s8_u8(vandq_u8(vshlq_u8(x, vdupq_n_s8(int8_t(-2 * (k % 8 / 2)))), vdupq_n_u8(3)));
    }
};

struct Q3_K {
    using Block                   = block_q3_K;
    static constexpr bool has_min = false;
    static int8x16_t      scales(const Block & b) {
        int8_t scale[16];
        for (int k = 0; k < 16; ++k) {
            scale[k] =
                int8_t(((b.scales[k % 8] >> (k / 8 * 4) & 15) | (b.scales[8 + k % 4] >> (k / 4 * 2) & 3) << 4) - 32);
        }
        return vld1q_s8(scale);
    }
    static int8x16_t load(const Block & b, int k) {
        const int        half = k / 8, part = k % 8 / 2;
        const uint8x16_t x    = vshlq_u8(vld1q_u8(b.qs + 32 * half + 16 * (k % 2)), vdupq_n_s8(int8_t(-2 * part)));
        const uint8x16_t high = vshlq_u8(vld1q_u8(b.hmask + 16 * (k % 2)), vdupq_n_s8(int8_t(-4 * half - part)));
        const int8x16_t  low  = vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(3)));
        return vsubq_s8(with_bits(low, vshlq_n_u8(vandq_u8(high, vdupq_n_u8(1)), 2)), vdupq_n_s8(4));
    }
};

struct IQ4_XS {
    using Block                   = block_iq4_xs;
    static constexpr bool has_min = false;
    static int8x16_t      scales(const Block & b) { // each of them twice
        int8_t scale[16];
        for (int k = 0; k < 8; ++k) {
            const int low = b.scales_l[k / 2] >> (k % 2 * 4) & 15, high = b.scales_h >> (2 * k) & 3;
            scale[2 * k] = scale[2 * k + 1] = int8_t((low | high << 4) - 32);
        }
        return vld1q_s8(scale);
    }
    static int8x16_t load(const Block & b, int k) {
        const uint8x16_t x = vld1q_u8(b.qs + 16 * (k / 2));
        return vqtbl1q_s8(vld1q_s8(iq4_values.at), k % 2 ? vshrq_n_u8(x, 4) : vandq_u8(x, vdupq_n_u8(15)));
    }
};

template <class T, int N> void multiply_k16(const specee_product & p) {
    const int64_t      n_blocks = p.n_in / QK_K;
    const block_q8_K * rows[N];
    for (int i = 0; i < N; ++i) {
        rows[i] = row_of<block_q8_K>(p, i);
    }
    for (int64_t r = 0; r < p.n_out; ++r) {
        const auto * const w       = reinterpret_cast<const typename T::Block *>(static_cast<const char *>(p.weights) +
                                                                                 size_t(r) * p.weights_stride);
        float              sums[N] = {};
        for (int64_t b = 0; b < n_blocks; ++b) {
            int8_t scale[16];
            vst1q_s8(scale, T::scales(w[b]));
            int32x4_t acc[N];
            for (int i = 0; i < N; ++i) {
                acc[i] = vdupq_n_s32(0);
            }
            for (int k = 0; k < QK_K / 16; ++k) {
                const int8x16_t q = T::load(w[b], k);
                for (int i = 0; i < N; ++i) {
                    const int32x4_t dots = vdotq_s32(vdupq_n_s32(0), q, vld1q_s8(rows[i][b].qs + 16 * k));
                    acc[i]               = vmlaq_n_s32(acc[i], dots, scale[k]);
                }
            }
            const float d = half_to_float(w[b].d);
            for (int i = 0; i < N; ++i) {
                const block_q8_K & x = rows[i][b];
                if constexpr (T::has_min) {
                    const int8x16_t mins = high_nibbles(vld1q_u8(w[b].scales));
                    const int32_t   min  = dot(vld1q_s16(x.bsums), vmovl_s8(vget_low_s8(mins))) +
                                           dot(vld1q_s16(x.bsums + 8), vmovl_high_s8(mins));
                    sums[i]              = std::fma(-x.d * half_to_float(w[b].dmin), float(min), sums[i]);
                }
                sums[i] = std::fma(x.d * d, float(vaddvq_s32(acc[i])), sums[i]);
            }
        }
        for (int i = 0; i < N; ++i) {
            p.out[size_t(i) * p.out_stride + size_t(r)] = sums[i];
        }
    }
}

} // namespace
} // namespace specee::small_batch
