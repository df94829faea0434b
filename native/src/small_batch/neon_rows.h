// NEON kernels for rows as in the file. The order of additions is that of ggml's kernels for one row on 64-bit ARM.
// Where these leave it to the compiler whether a product and a sum are fused (vmlaq), so do we; in scalar code both GCC
// and Clang fuse them.
#pragma once

#include "neon_common.h"

#include <cmath>

namespace specee::small_batch {
namespace {

inline int32x4_t dot_of_32(const int8x16x2_t & q, const int8_t * x) {
    return vdotq_s32(vdotq_s32(vdupq_n_s32(0), q.val[0], vld1q_s8(x)), q.val[1], vld1q_s8(x + 16));
}

template <class Row> const Row * row_of(const specee_product & p, int i) {
    return reinterpret_cast<const Row *>(static_cast<const char *>(p.rows) + size_t(i) * p.rows_stride);
}

// ---- a scale for each 32 weights -----------------------------------------------------------------------------------

// min_sums: sums that ggml's kernel keeps of products with mins: one for each block of a pair, or one for both.

struct Q4_0 {
    using Block                   = block_q4_0;
    using Row                     = block_q8_0;
    static constexpr int min_sums = 0;
    static int8x16x2_t   load(const Block & b) {
        const uint8x16_t x = vld1q_u8(b.qs);
        return { vsubq_s8(low_nibbles(x), vdupq_n_s8(8)), vsubq_s8(high_nibbles(x), vdupq_n_s8(8)) };
    }
};

struct Q4_1 {
    using Block                   = block_q4_1;
    using Row                     = block_q8_1;
    static constexpr int min_sums = 1;
    static int8x16x2_t   load(const Block & b) {
        const uint8x16_t x = vld1q_u8(b.qs);
        return { low_nibbles(x), high_nibbles(x) };
    }
};

inline uint8x16_t has_fifth_bit(const uint8_t * h) { // of 16 weights: two bytes -> all bits where the bit is set
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    return vtstq_u8(vcombine_u8(vdup_n_u8(h[0]), vdup_n_u8(h[1])), bit);
}

struct Q5_0 {
    using Block                   = block_q5_0;
    using Row                     = block_q8_0;
    static constexpr int min_sums = 0;
    static int8x16_t     missing(const uint8_t * h) { // 16 where the bit is not set
        return vreinterpretq_s8_u8(vbicq_u8(vdupq_n_u8(16), has_fifth_bit(h)));
    }
    static int8x16x2_t load(const Block & b) {
        const uint8x16_t x = vld1q_u8(b.qs);
        return { vsubq_s8(low_nibbles(x), missing(b.qh)), vsubq_s8(high_nibbles(x), missing(b.qh + 2)) };
    }
};

struct Q5_1 {
    using Block                   = block_q5_1;
    using Row                     = block_q8_1;
    static constexpr int min_sums = 2;
    static uint8x16_t    fifth(const uint8_t * h) { return vandq_u8(vdupq_n_u8(16), has_fifth_bit(h)); }
    static int8x16x2_t   load(const Block & b) {
        const uint8x16_t x = vld1q_u8(b.qs);
        return { with_bits(low_nibbles(x), fifth(b.qh)), with_bits(high_nibbles(x), fifth(b.qh + 2)) };
    }
};

struct Q8_0 {
    using Block                   = block_q8_0;
    using Row                     = block_q8_0;
    static constexpr int min_sums = 0;
    static int8x16x2_t   load(const Block & b) { return { vld1q_s8(b.qs), vld1q_s8(b.qs + 16) }; }
};

template <class T, int N> void multiply_32(const specee_product & p) {
    const int64_t           n_blocks = p.n_in / 32;
    const typename T::Row * rows[N];
    for (int i = 0; i < N; ++i) {
        rows[i] = row_of<typename T::Row>(p, i);
    }
    for (int64_t r = 0; r < p.n_out; ++r) {
        const auto * const w = reinterpret_cast<const typename T::Block *>(static_cast<const char *>(p.weights) +
                                                                           size_t(r) * p.weights_stride);
        float32x4_t        acc[2][N]; // of even blocks, of odd ones
        float              mins[2][N] = {};
        for (int i = 0; i < N; ++i) {
            acc[0][i] = acc[1][i] = vdupq_n_f32(0);
        }
        for (int64_t b = 0; b + 1 < n_blocks; b += 2) {
            for (int odd = 0; odd < 2; ++odd) {
                const auto & block = w[b + odd];
                const auto   q     = T::load(block);
                const float  d     = half_to_float(block.d);
                for (int i = 0; i < N; ++i) {
                    const auto & x = rows[i][b + odd];
                    acc[odd][i] = vmlaq_n_f32(acc[odd][i], vcvtq_f32_s32(dot_of_32(q, x.qs)), d * half_to_float(x.d));
                }
            }
            if constexpr (T::min_sums != 0) {
                const float m[2] = { half_to_float(w[b].m), half_to_float(w[b + 1].m) };
                for (int i = 0; i < N; ++i) {
                    const float s[2] = { half_to_float(rows[i][b].s), half_to_float(rows[i][b + 1].s) };
                    if constexpr (T::min_sums == 1) {
                        mins[0][i] += std::fma(m[0], s[0], m[1] * s[1]);
                    } else {
                        mins[0][i] = std::fma(m[0], s[0], mins[0][i]);
                        mins[1][i] = std::fma(m[1], s[1], mins[1][i]);
                    }
                }
            }
        }
        for (int i = 0; i < N; ++i) {
            float sum = vaddvq_f32(acc[0][i]) + vaddvq_f32(acc[1][i]);
            for (int k = 0; k < T::min_sums; ++k) {
                sum += mins[k][i];
            }
            if (n_blocks % 2) {
                const auto & block = w[n_blocks - 1];
                const auto & x     = rows[i][n_blocks - 1];
                const float  dot   = float(vaddvq_s32(dot_of_32(T::load(block), x.qs)));
                const float  d = half_to_float(block.d), dx = half_to_float(x.d);
                if constexpr (T::min_sums != 0) {
                    sum += std::fma(d * dx, dot, half_to_float(block.m) * half_to_float(x.s));
                } else if constexpr (sizeof(typename T::Block) == sizeof(block_q4_0)) {
                    sum = std::fma(dot * d, dx, sum);
                } else {
                    sum = std::fma(d * dx, dot, sum);
                }
            }
            p.out[size_t(i) * p.out_stride + size_t(r)] = sum;
        }
    }
}

// ---- a scale for each 256 weights ----------------------------------------------------------------------------------

struct Q4_K {
    using Block = block_q4_K;
    static void load(const Block & b, int pair, int8x16_t * q) { // 64 weights
        for (int k = 0; k < 2; ++k) {
            const uint8x16_t x = vld1q_u8(b.qs + 32 * pair + 16 * k);
            q[k]               = low_nibbles(x);
            q[2 + k]           = high_nibbles(x);
        }
    }
    static float add(float sum, float d, float dot, float dmin, float min) {
        return std::fma(d, dot, std::fma(-dmin, min, sum));
    }
};

struct Q5_K {
    using Block = block_q5_K;
    static void load(const Block & b, int pair, int8x16_t * q) {
        for (int k = 0; k < 2; ++k) {
            const uint8x16_t x    = vld1q_u8(b.qs + 32 * pair + 16 * k);
            const uint8x16_t bits = vshlq_u8(vld1q_u8(b.qh + 16 * k), vdupq_n_s8(int8_t(-2 * pair)));
            q[k]                  = with_bits(low_nibbles(x), vshlq_n_u8(vandq_u8(bits, vdupq_n_u8(1)), 4));
            q[2 + k]              = with_bits(high_nibbles(x), vshlq_n_u8(vandq_u8(bits, vdupq_n_u8(2)), 3));
        }
    }
    static float add(float sum, float d, float dot, float dmin, float min) {
        return sum + std::fma(d, dot, -(dmin * min));
    }
};

template <class T, int N> void multiply_k(const specee_product & p) {
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
            const ScalesMins s(w[b].scales);
            int32x4_t        acc[N];
            for (int i = 0; i < N; ++i) {
                acc[i] = vdupq_n_s32(0);
            }
            for (int pair = 0; pair < QK_K / 64; ++pair) {
                int8x16_t q[4];
                T::load(w[b], pair, q);
                for (int i = 0; i < N; ++i) {
                    const int8_t * const x = rows[i][b].qs + 64 * pair;
                    for (int k = 0; k < 2; ++k) {
                        const int32x4_t first = vdotq_s32(vdupq_n_s32(0), q[2 * k], vld1q_s8(x + 32 * k));
                        const int32x4_t both  = vdotq_s32(first, q[2 * k + 1], vld1q_s8(x + 32 * k + 16));
                        acc[i]                = vmlaq_n_s32(acc[i], both, s.scale[2 * pair + k]);
                    }
                }
            }
            const int16x8_t min = widen(s.min);
            const float     d = half_to_float(w[b].d), dmin = half_to_float(w[b].dmin);
            for (int i = 0; i < N; ++i) {
                const block_q8_K & x = rows[i][b];
                sums[i]              = T::add(sums[i], x.d * d, float(vaddvq_s32(acc[i])), x.d * dmin,
                                              float(dot(sums_of_32(x.bsums), min)));
            }
        }
        for (int i = 0; i < N; ++i) {
            p.out[size_t(i) * p.out_stride + size_t(r)] = sums[i];
        }
    }
}

template <int N> void multiply_q6_k(const specee_product & p) {
    const int64_t      n_blocks = p.n_in / QK_K;
    const block_q8_K * rows[N];
    for (int i = 0; i < N; ++i) {
        rows[i] = row_of<block_q8_K>(p, i);
    }
    for (int64_t r = 0; r < p.n_out; ++r) {
        const auto * const w =
            reinterpret_cast<const block_q6_K *>(static_cast<const char *>(p.weights) + size_t(r) * p.weights_stride);
        float sums[N] = {};
        for (int64_t b = 0; b < n_blocks; ++b) {
            int32x4_t acc[N];
            for (int i = 0; i < N; ++i) {
                acc[i] = vdupq_n_s32(0);
            }
            for (int k = 0; k < QK_K / 16; ++k) { // 16 weights, stored + 32
                const int        half = k / 8, part = k % 8 / 2;
                const uint8x16_t x = vld1q_u8(w[b].ql + 64 * half + 32 * (part % 2) + 16 * (k % 2));
                const uint8x16_t h =
                    vshlq_u8(vld1q_u8(w[b].qh + 32 * half + 16 * (k % 2)), vdupq_n_s8(int8_t(-2 * part)));
                const int8x16_t q =
                    with_bits(part < 2 ? low_nibbles(x) : high_nibbles(x), vshlq_n_u8(vandq_u8(h, vdupq_n_u8(3)), 4));
                for (int i = 0; i < N; ++i) {
                    const int32x4_t dots = vdotq_s32(vdupq_n_s32(0), q, vld1q_s8(rows[i][b].qs + 16 * k));
                    acc[i]               = vmlaq_n_s32(acc[i], dots, w[b].scales[k]);
                }
            }
            const int8x16_t scales = vld1q_s8(w[b].scales);
            const float     d      = half_to_float(w[b].d);
            for (int i = 0; i < N; ++i) {
                const block_q8_K & x    = rows[i][b];
                const int32_t      bias = dot(vld1q_s16(x.bsums), vmovl_s8(vget_low_s8(scales))) +
                                          dot(vld1q_s16(x.bsums + 8), vmovl_high_s8(scales));
                sums[i]                 = std::fma(d * x.d, float(vaddvq_s32(acc[i]) - 32 * bias), sums[i]);
            }
        }
        for (int i = 0; i < N; ++i) {
            p.out[size_t(i) * p.out_stride + size_t(r)] = sums[i];
        }
    }
}

} // namespace
} // namespace specee::small_batch
