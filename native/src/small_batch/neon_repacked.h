// NEON kernels for ggml's repacked groups of 4 or 8 weight rows, here called columns, whose numbers are interleaved: I
// (4 or 8) of each column in turn. A vector of 16 weights holds I numbers of 16 / I columns.
//
// With i8mm and I = 8, two rows of activations meet two columns at a time. The integers are exact either way, and the
// order of additions is that of ggml's gemv for the same layout.
#pragma once

#include "neon_common.h"

namespace specee::small_batch {
namespace {

// Rows of activations in the order in which they are read: as they are, or (i8mm) two by two, 8 numbers of each in
// turn.
template <bool i8mm, int N, int K> struct PackedRows {
    static constexpr int R = i8mm ? (N + 1) / 2 * 2 : N; // the last one twice if it has no partner
    int8_t               x[R * K];
    int16_t              sums[N][16]; // of 16 numbers each, for types with 256 weights to a scale
    float                d[N];

    void set(int i, const int8_t * from) {
        if constexpr (i8mm) {
            for (int k = 0; k < K / 8; ++k) {
                for (int twin = i; twin < (i == N - 1 ? R : i + 1); ++twin) {
                    std::memcpy(x + (twin / 2 * 2 * K) + 16 * k + 8 * (twin % 2), from + 8 * k, 8);
                }
            }
        } else {
            std::memcpy(x + i * K, from, K);
        }
    }
};

// The rows of a product, in any number of blocks.
template <class Row, bool i8mm, int N, int K> void pack_to(const specee_product & p, void * to) {
    const int64_t n_blocks = p.n_in / K;
    auto * const  packed   = static_cast<PackedRows<i8mm, N, K> *>(to);
    for (int i = 0; i < N; ++i) {
        const auto * row = reinterpret_cast<const Row *>(static_cast<const char *>(p.rows) + size_t(i) * p.rows_stride);
        for (int64_t b = 0; b < n_blocks; ++b) {
            packed[b].set(i, row[b].qs);
            if constexpr (K == QK_K) {
                packed[b].d[i] = row[b].d;
                std::memcpy(packed[b].sums[i], row[b].bsums, sizeof row[b].bsums);
            } else {
                packed[b].d[i] = half_to_float(row[b].d);
            }
        }
    }
}

template <class Row, bool i8mm, int N, int K> const PackedRows<i8mm, N, K> * pack(const specee_product & p) {
    void * const to = scratch(size_t(p.n_in / K) * sizeof(PackedRows<i8mm, N, K>));
    pack_to<Row, i8mm, N, K>(p, to);
    return static_cast<const PackedRows<i8mm, N, K> *>(to);
}

// Sums of four columns (number `four` of C / 4) over n numbers, from number `first` of the rows on. load(v): vector v
// of the n * C / 16 vectors of weights.
template <bool i8mm, int I, int C, int n, int N, int K, class Load>
inline void four_columns(const PackedRows<i8mm, N, K> & rows, int first, int four, Load load, int32x4_t * sums) {
    constexpr int per_step = C * I / 16; // vectors for I numbers of all columns
    if constexpr (I == 4) {
        for (int i = 0; i < N; ++i) {
            sums[i] = vdupq_n_s32(0);
        }
        for (int k = 0; k < n / 16; ++k) {
            int8x16_t w[4];
            for (int j = 0; j < 4; ++j) {
                w[j] = load((4 * k + j) * per_step + four);
            }
            for (int i = 0; i < N; ++i) {
                const int8x16_t x = vld1q_s8(rows.x + i * K + first + 16 * k);
                sums[i]           = vdotq_laneq_s32(sums[i], w[0], x, 0);
                sums[i]           = vdotq_laneq_s32(sums[i], w[1], x, 1);
                sums[i]           = vdotq_laneq_s32(sums[i], w[2], x, 2);
                sums[i]           = vdotq_laneq_s32(sums[i], w[3], x, 3);
            }
        }
    } else {
        int8x16_t w[n / 8][2]; // columns 0 and 1, 2 and 3
        for (int k = 0; k < n / 8; ++k) {
            w[k][0] = load(k * per_step + 2 * four);
            w[k][1] = load(k * per_step + 2 * four + 1);
        }
        for (int i = 0; i < N; i += i8mm ? 2 : 1) {
            int32x4_t a = vdupq_n_s32(0), b = a;
            for (int k = 0; k < n / 8; ++k) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
                if constexpr (i8mm) {
                    const int8x16_t x = vld1q_s8(rows.x + i * K + 2 * first + 16 * k);
                    a                 = vmmlaq_s32(a, w[k][0], x);
                    b                 = vmmlaq_s32(b, w[k][1], x);
                }
#endif
                if constexpr (!i8mm) {
                    const int8x8_t  eight = vld1_s8(rows.x + i * K + first + 8 * k);
                    const int8x16_t x     = vcombine_s8(eight, eight);
                    a                     = vdotq_s32(a, w[k][0], x);
                    b                     = vdotq_s32(b, w[k][1], x);
                }
            }
            if constexpr (i8mm) { // column 0 by row 0, 0 by 1, 1 by 0, 1 by 1
                sums[i] = vuzp1q_s32(a, b);
                if (i + 1 < N) {
                    sums[i + 1] = vuzp2q_s32(a, b);
                }
            } else {
                sums[i] = vpaddq_s32(a, b);
            }
        }
    }
}

inline float32x4_t four_halves(const ggml_half * h) {
    float16x4_t x;
    std::memcpy(&x, h, sizeof x);
    return vcvt_f32_f16(x);
}

// ---- four columns, a scale for each 32 weights ---------------------------------------------------------------------

struct GroupQ4_0 {                      // block_q4_0x4; its nibbles are signed
    static constexpr bool fused = true; // products and sums, in ggml's gemv; else the compiler decides
    ggml_half             d[4];
    uint8_t               qs[64];

    int8x16_t load(int v) const { // 16 times the weights
        const uint8x16_t x = vld1q_u8(qs + 16 * (v % 4));
        return vreinterpretq_s8_u8(v < 4 ? vshlq_n_u8(x, 4) : vandq_u8(x, vdupq_n_u8(0xf0)));
    }
    float32x4_t        scales() const { return four_halves(d); }
    static float32x4_t to_float(int32x4_t x) { return vcvtq_n_f32_s32(x, 4); }
};

struct GroupQ8_0 { // block_q8_0x4
    static constexpr bool fused = true;
    ggml_half             d[4];
    int8_t                qs[128];

    int8x16_t          load(int v) const { return vld1q_s8(qs + 16 * v); }
    float32x4_t        scales() const { return four_halves(d); }
    static float32x4_t to_float(int32x4_t x) { return vcvtq_f32_s32(x); }
};

inline int8x16_t look_up(const Values & values, const uint8_t * nibbles, bool high) {
    const uint8x16_t x = vld1q_u8(nibbles);
    return vqtbl1q_s8(vld1q_s8(values.at), high ? vshrq_n_u8(x, 4) : vandq_u8(x, vdupq_n_u8(15)));
}

struct GroupIQ4_NL { // block_iq4_nlx4
    static constexpr bool fused = false;
    ggml_half             d[4];
    uint8_t               qs[64];

    int8x16_t          load(int v) const { return look_up(iq4_values, qs + 16 * (v % 4), v >= 4); }
    float32x4_t        scales() const { return four_halves(d); }
    static float32x4_t to_float(int32x4_t x) { return vcvtq_f32_s32(x); }
};

struct GroupMXFP4 { // block_mxfp4x4
    static constexpr bool fused = false;
    uint8_t               e[4];
    uint8_t               qs[64];

    int8x16_t   load(int v) const { return look_up(fp4_values, qs + 16 * (v % 4), v >= 4); }
    float32x4_t scales() const {
        return float32x4_t{ half_of_power(e[0]), half_of_power(e[1]), half_of_power(e[2]), half_of_power(e[3]) };
    }
    static float32x4_t to_float(int32x4_t x) { return vcvtq_f32_s32(x); }
};

template <class Group, bool i8mm, int I, int N> void multiply_group_32(const specee_product & p) {
    const int64_t      n_blocks = p.n_in / 32;
    const auto * const rows     = pack<block_q8_0, i8mm, N, 32>(p);
    const auto *       group    = static_cast<const Group *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += 4) {
        float32x4_t acc[N];
        for (int i = 0; i < N; ++i) {
            acc[i] = vdupq_n_f32(0);
        }
        for (int64_t b = 0; b < n_blocks; ++b, ++group) {
            int32x4_t sums[N];
            four_columns<i8mm, I, 4, 32>(rows[b], 0, 0, [group](int v) { return group->load(v); }, sums);
            const float32x4_t d = group->scales();
            for (int i = 0; i < N; ++i) {
                const float32x4_t dot = Group::to_float(sums[i]), scale = vmulq_n_f32(d, rows[b].d[i]);
                acc[i] = Group::fused ? vfmaq_f32(acc[i], dot, scale) : vmlaq_f32(acc[i], scale, dot);
            }
        }
        for (int i = 0; i < N; ++i) {
            vst1q_f32(p.out + size_t(i) * p.out_stride + size_t(r), acc[i]);
        }
    }
}

// ---- eight columns, a scale for each 256 weights -------------------------------------------------------------------

struct GroupQ4_K { // block_q4_Kx8
    static constexpr bool five_bits = false;
    ggml_half             d[8];
    ggml_half             dmin[8];
    uint8_t               scales[96];
    uint8_t               qs[1024];

    int8x16_t low(int pair, int v) const { return low_nibbles(vld1q_u8(qs + 256 * pair + 16 * v)); }
    int8x16_t high(int pair, int v) const { return high_nibbles(vld1q_u8(qs + 256 * pair + 16 * v)); }
};

struct GroupQ5_K { // block_q5_Kx8
    static constexpr bool five_bits = true;
    ggml_half             d[8];
    ggml_half             dmin[8];
    uint8_t               scales[96];
    uint8_t               qh[256];
    uint8_t               qs[1024];

    uint8x16_t bits(int pair, int v) const { return vshlq_u8(vld1q_u8(qh + 16 * v), vdupq_n_s8(int8_t(-2 * pair))); }
    int8x16_t  low(int pair, int v) const {
        return with_bits(low_nibbles(vld1q_u8(qs + 256 * pair + 16 * v)),
                         vshlq_n_u8(vandq_u8(bits(pair, v), vdupq_n_u8(1)), 4));
    }
    int8x16_t high(int pair, int v) const {
        return with_bits(high_nibbles(vld1q_u8(qs + 256 * pair + 16 * v)),
                         vshlq_n_u8(vandq_u8(bits(pair, v), vdupq_n_u8(2)), 3));
    }
};

template <class Group, bool i8mm, int I, int N> void multiply_group_k(const specee_product & p) {
    const int64_t      n_blocks = p.n_in / QK_K;
    const auto * const rows     = pack<block_q8_K, i8mm, N, QK_K>(p);
    const auto *       group    = static_cast<const Group *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += 8) {
        float32x4_t acc[2][N];
        for (int i = 0; i < N; ++i) {
            acc[0][i] = acc[1][i] = vdupq_n_f32(0);
        }
        for (int64_t b = 0; b < n_blocks; ++b, ++group) {
            int16_t sums32[N][8];
            for (int i = 0; i < N; ++i) {
                vst1q_s16(sums32[i], sums_of_32(rows[b].sums[i]));
            }
            for (int four = 0; four < 2; ++four) {
                const float32x4_t d = four_halves(group->d + 4 * four), dmin = four_halves(group->dmin + 4 * four);
                float32x4_t       dx[N], dm[N];
                int32x4_t         min_sums[N];
                for (int i = 0; i < N; ++i) {
                    dx[i]       = vmulq_n_f32(d, rows[b].d[i]);
                    dm[i]       = vmulq_n_f32(dmin, rows[b].d[i]);
                    min_sums[i] = vdupq_n_s32(0);
                }
                for (int pair = 0; pair < QK_K / 64; ++pair) {
                    const ScalesMins low(group->scales + 24 * pair), high(group->scales + 24 * pair + 12);
                    const auto       four_of = [four](const uint8_t * eight) {
                        const int16x8_t x = widen(eight);
                        return four ? vget_high_s16(x) : vget_low_s16(x);
                    };
                    const int32x4_t scale[2] = { vmovl_s16(four_of(low.scale)), vmovl_s16(four_of(high.scale)) };
                    const int16x4_t min[2]   = { four_of(low.min), four_of(high.min) };
                    int32x4_t       dots[2][N];
                    four_columns<i8mm, I, 8, 32>(
                        rows[b], 64 * pair, four, [=](int v) { return group->low(pair, v); }, dots[0]);
                    four_columns<i8mm, I, 8, 32>(
                        rows[b], 64 * pair + 32, four, [=](int v) { return group->high(pair, v); }, dots[1]);
                    for (int i = 0; i < N; ++i) {
                        const int32x4_t scaled[2] = { vmulq_s32(dots[0][i], scale[0]),
                                                      vmulq_s32(dots[1][i], scale[1]) };
                        if constexpr (I == 4) {
                            const int32x4_t both = vaddq_s32(scaled[0], scaled[1]);
                            acc[four][i]         = vfmaq_f32(acc[four][i], dx[i], vcvtq_f32_s32(both));
                        } else {
                            acc[four][i] = vfmaq_f32(acc[four][i], dx[i], vcvtq_f32_s32(scaled[0]));
                            acc[four][i] = vfmaq_f32(acc[four][i], dx[i], vcvtq_f32_s32(scaled[1]));
                        }
                        min_sums[i] = vmlal_n_s16(min_sums[i], min[0], sums32[i][2 * pair]);
                        min_sums[i] = vmlal_n_s16(min_sums[i], min[1], sums32[i][2 * pair + 1]);
                        if (I == 8 && Group::five_bits) { // its gemv subtracts the mins at each step
                            acc[four][i] = vmlsq_f32(acc[four][i], dm[i], vcvtq_f32_s32(min_sums[i]));
                            min_sums[i]  = vdupq_n_s32(0);
                        }
                    }
                }
                for (int i = 0; i < N && !(I == 8 && Group::five_bits); ++i) {
                    acc[four][i] = vmlsq_f32(acc[four][i], dm[i], vcvtq_f32_s32(min_sums[i]));
                }
            }
        }
        for (int i = 0; i < N; ++i) {
            vst1q_f32(p.out + size_t(i) * p.out_stride + size_t(r), acc[0][i]);
            vst1q_f32(p.out + size_t(i) * p.out_stride + size_t(r) + 4, acc[1][i]);
        }
    }
}

struct GroupQ6_K { // block_q6_Kx8
    ggml_half d[8];
    int8_t    scales[128];
    uint8_t   ql[1024];
    uint8_t   qh[512];

    // Weights 16k to 16k + 15, stored + 32.
    int8x16_t load(int k, int v) const {
        const int        half = k / 8, part = k % 4;
        const bool       is_high = k % 8 >= 4;
        const uint8x16_t x       = vld1q_u8(ql + 512 * half + 128 * part + 16 * v);
        const uint8x16_t h       = vld1q_u8(qh + 256 * half + 128 * (part % 2) + 16 * v);
        const uint8x16_t two     = vshlq_u8(h, vdupq_n_s8(int8_t(-2 * (part / 2) - 4 * is_high)));
        return with_bits(is_high ? high_nibbles(x) : low_nibbles(x), vshlq_n_u8(vandq_u8(two, vdupq_n_u8(3)), 4));
    }
};

template <bool i8mm, int I, int N> void multiply_group_q6_k(const specee_product & p) {
    const int64_t      n_blocks = p.n_in / QK_K;
    const auto * const rows     = pack<block_q8_K, i8mm, N, QK_K>(p);
    const auto *       group    = static_cast<const GroupQ6_K *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += 8) {
        float32x4_t acc[2][N];
        for (int i = 0; i < N; ++i) {
            acc[0][i] = acc[1][i] = vdupq_n_f32(0);
        }
        for (int64_t b = 0; b < n_blocks; ++b, ++group) {
            for (int four = 0; four < 2; ++four) {
                int32x4_t sums[N];
                for (int i = 0; i < N; ++i) {
                    sums[i] = vdupq_n_s32(0);
                }
                for (int k = 0; k < QK_K / 16; ++k) {
                    const int16x8_t eight = vmovl_s8(vld1_s8(group->scales + 8 * k));
                    const int32x4_t scale = four ? vmovl_high_s16(eight) : vmovl_s16(vget_low_s16(eight));
                    int32x4_t       dots[N];
                    four_columns<i8mm, I, 8, 16>(rows[b], 16 * k, four, [=](int v) { return group->load(k, v); }, dots);
                    for (int i = 0; i < N; ++i) {
                        const int32x4_t dot = vsubq_s32(dots[i], vdupq_n_s32(32 * rows[b].sums[i][k]));
                        sums[i]             = vmlaq_s32(sums[i], dot, scale);
                    }
                }
                const float32x4_t d = four_halves(group->d + 4 * four);
                for (int i = 0; i < N; ++i) {
                    const float32x4_t x = vcvtq_f32_s32(sums[i]), dx = vmulq_n_f32(d, rows[b].d[i]);
                    // Written as in ggml's gemv, because what the compiler fuses depends on it.
                    if constexpr (I == 4) {
                        acc[four][i] = vaddq_f32(acc[four][i], vmulq_f32(x, dx));
                    } else {
                        const float32x2_t low  = vmul_f32(vget_low_f32(x), vget_low_f32(dx));
                        const float32x2_t high = vmul_f32(vget_high_f32(x), vget_high_f32(dx));
                        acc[four][i]           = vaddq_f32(acc[four][i], vcombine_f32(low, high));
                    }
                }
            }
        }
        for (int i = 0; i < N; ++i) {
            vst1q_f32(p.out + size_t(i) * p.out_stride + size_t(r), acc[0][i]);
            vst1q_f32(p.out + size_t(i) * p.out_stride + size_t(r) + 4, acc[1][i]);
        }
    }
}

} // namespace
} // namespace specee::small_batch
