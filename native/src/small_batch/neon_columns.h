// NEON kernels for columns (columns.h), of the types that ggml does not repack for ARM and whose products it adds as
// integers in each block of 256: Q2_K, Q3_K, IQ4_XS. A vector of 512 bits of a tile is four of 128: four neighbouring
// weights of four weight rows.
//
// For 64 weights and a row of activations, rows as in the file take 24 instructions (load, clear, dot product, multiply
// by the scale; of 16 weights each, which must then be added across the vector), columns 7, and 5 with i8mm, whose
// instruction takes two rows of activations. All that is added in a block are integers, so prompts have ggml's bits as
// well. Q4_1, Q5_0 and Q5_1 add four floats for each 32 weights, and so need as many dot products, conversions and sums
// in either layout; only their scales and loads would be fewer (23 instructions instead of 32).
#pragma once

#include "ggml.h"
#include "neon_repacked.h"

namespace specee::small_batch {
namespace {

constexpr int tile_rows = 16;

inline uint8x16_t four_rows(const char * tile, int vector, int quarter) { // four weights of each
    return vld1q_u8(reinterpret_cast<const uint8_t *>(tile) + 64 * vector + 16 * quarter);
}
inline uint32x4_t word_of_rows(const char * tile, int vector, int quarter) {
    return vreinterpretq_u32_u8(four_rows(tile, vector, quarter));
}
inline float32x4_t halves_of_rows(const char * halves, int quarter) {
    float16x4_t x;
    std::memcpy(&x, halves + 8 * quarter, sizeof x);
    return vcvt_f32_f16(x);
}
inline uint8x16_t shift_right(uint8x16_t x, int by) {
    return vshlq_u8(x, vdupq_n_s8(int8_t(-by)));
}
inline uint32x4_t bits_of(uint32x4_t words, int from, uint32_t mask) {
    return vandq_u32(vshlq_u32(words, vdupq_n_s32(-from)), vdupq_n_u32(mask));
}

// Of each: load: weights 16k to 16k + 15 of four rows, in four vectors; scale: theirs.

struct Q2_KColumns {
    static constexpr bool has_min = true;
    static constexpr int  bytes = 16 * sizeof(block_q2_K), d_at = 1280, dmin_at = 1312;
    static void           load(const char * tile, int quarter, int k, int8x16_t * w) {
        for (int j = 0; j < 4; ++j) {
            const uint8x16_t x = four_rows(tile, k / 8 * 8 + k % 2 * 4 + j, quarter);
            w[j]               = vreinterpretq_s8_u8(vandq_u8(shift_right(x, k % 8 / 2 * 2), vdupq_n_u8(3)));
        }
    }
    static int32x4_t scale(const char * tile, int quarter, int k) {
        return vreinterpretq_s32_u32(bits_of(word_of_rows(tile + 1024, k / 4, quarter), k % 4 * 8, 15));
    }
    static int32x4_t min(const char * tile, int quarter, int k) {
        return vreinterpretq_s32_u32(bits_of(word_of_rows(tile + 1024, k / 4, quarter), k % 4 * 8 + 4, 15));
    }
};

struct Q3_KColumns {
    static constexpr bool has_min = false;
    static constexpr int  bytes = 16 * sizeof(block_q3_K), d_at = 1728;
    static void           load(const char * tile, int quarter, int k, int8x16_t * w) {
        const int half = k / 8, part = k % 8 / 2;
        for (int j = 0; j < 4; ++j) {
            const int        at  = (k % 2 * 4 + j) * 3;
            const uint8x16_t low = vandq_u8(shift_right(four_rows(tile, at + half, quarter), 2 * part), vdupq_n_u8(3));
            const uint8x16_t high =
                vandq_u8(shift_right(four_rows(tile, at + 2, quarter), 4 * half + part), vdupq_n_u8(1));
            w[j] = vsubq_s8(vreinterpretq_s8_u8(vorrq_u8(low, vshlq_n_u8(high, 2))), vdupq_n_s8(4));
        }
    }
    static int32x4_t scale(const char * tile, int quarter, int k) {
        const char * const scales = tile + 1536;
        const uint32x4_t   low    = bits_of(word_of_rows(scales, k % 8 / 4, quarter), k % 4 * 8 + k / 8 * 4, 15);
        const uint32x4_t   high   = bits_of(word_of_rows(scales, 2, quarter), k % 4 * 8 + k / 4 * 2, 3);
        return vsubq_s32(vreinterpretq_s32_u32(vorrq_u32(low, vshlq_n_u32(high, 4))), vdupq_n_s32(32));
    }
};

struct IQ4_XSColumns {
    static constexpr bool has_min = false;
    static constexpr int  bytes = 16 * sizeof(block_iq4_xs), d_at = 2144;
    static void           load(const char * tile, int quarter, int k, int8x16_t * w) {
        const int8x16_t values = vld1q_s8(iq4_values.at);
        for (int j = 0; j < 4; ++j) {
            const uint8x16_t x = four_rows(tile, 8 * j + k / 2, quarter);
            w[j]               = vqtbl1q_s8(values, k % 2 ? vshrq_n_u8(x, 4) : vandq_u8(x, vdupq_n_u8(15)));
        }
    }
    static int32x4_t scale(const char * tile, int quarter, int k) {
        uint16x4_t h;
        std::memcpy(&h, tile + 2112 + 8 * quarter, sizeof h);
        const uint32x4_t low  = bits_of(word_of_rows(tile + 2048, 0, quarter), k / 2 * 4, 15);
        const uint32x4_t high = bits_of(vmovl_u16(h), k / 2 * 2, 3);
        return vsubq_s32(vreinterpretq_s32_u32(vorrq_u32(low, vshlq_n_u32(high, 4))), vdupq_n_s32(32));
    }
};

// Sums of a block of 256 weights of four rows with each of N rows of activations.
template <class T, bool i8mm, int N>
inline void block_sums(const char * tile, int quarter, const PackedRows<i8mm, N, QK_K> & rows, int32x4_t * sums) {
    constexpr int R = PackedRows<i8mm, N, QK_K>::R;
    int32x4_t     acc[R]; // i8mm: rows of activations i and i + 1 by weight rows 0 and 1, then by 2 and 3
    for (int i = 0; i < R; ++i) {
        acc[i] = vdupq_n_s32(0);
    }
    for (int k = 0; k < QK_K / 16; ++k) {
        int8x16_t w[4];
        T::load(tile, quarter, k, w);
        const int32x4_t scale = T::scale(tile, quarter, k);
#if defined(__ARM_FEATURE_MATMUL_INT8)
        if constexpr (i8mm) {
            const auto two_rows = [&](auto zip, int j) {
                return vreinterpretq_s8_s32(zip(vreinterpretq_s32_s8(w[j]), vreinterpretq_s32_s8(w[j + 1])));
            };
            const auto      zip1      = [](int32x4_t a, int32x4_t b) { return vzip1q_s32(a, b); };
            const auto      zip2      = [](int32x4_t a, int32x4_t b) { return vzip2q_s32(a, b); };
            const int8x16_t low[2]    = { two_rows(zip1, 0), two_rows(zip1, 2) }; // 8 weights of rows 0 and 1
            const int8x16_t high[2]   = { two_rows(zip2, 0), two_rows(zip2, 2) };
            const int32x4_t scales[2] = { vzip1q_s32(scale, scale), vzip2q_s32(scale, scale) };
            for (int i = 0; i < R; i += 2) {
                const int8_t * const from = rows.x + i * QK_K + 32 * k;
                const int8x16_t      x[2] = { vld1q_s8(from), vld1q_s8(from + 16) };
                const int32x4_t      a    = vmmlaq_s32(vmmlaq_s32(vdupq_n_s32(0), low[0], x[0]), low[1], x[1]);
                const int32x4_t      b    = vmmlaq_s32(vmmlaq_s32(vdupq_n_s32(0), high[0], x[0]), high[1], x[1]);
                acc[i]                    = vmlaq_s32(acc[i], a, scales[0]);
                acc[i + 1]                = vmlaq_s32(acc[i + 1], b, scales[1]);
            }
        }
#endif
        if constexpr (!i8mm) {
            for (int i = 0; i < N; ++i) {
                const int8x16_t x   = vld1q_s8(rows.x + i * QK_K + 16 * k);
                int32x4_t       dot = vdotq_laneq_s32(vdupq_n_s32(0), w[0], x, 0);
                dot                 = vdotq_laneq_s32(dot, w[1], x, 1);
                dot                 = vdotq_laneq_s32(dot, w[2], x, 2);
                dot                 = vdotq_laneq_s32(dot, w[3], x, 3);
                acc[i]              = vmlaq_s32(acc[i], dot, scale);
            }
        }
    }
    for (int i = 0; i < N; ++i) {
        const int two = i / 2 * 2;
        sums[i] = !i8mm ? acc[i] : i % 2 ? vuzp2q_s32(acc[two], acc[two + 1]) : vuzp1q_s32(acc[two], acc[two + 1]);
    }
}

template <class T, bool i8mm, int N> void multiply_columns_k(const specee_product & p) {
    const int64_t      n_blocks = p.n_in / QK_K;
    const auto * const rows     = static_cast<const PackedRows<i8mm, N, QK_K> *>(p.rows);
    const char *       tile     = static_cast<const char *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += tile_rows) {
        float32x4_t acc[4][N];
        for (auto & quarter : acc) {
            for (auto & sum : quarter) {
                sum = vdupq_n_f32(0);
            }
        }
        for (int64_t b = 0; b < n_blocks; ++b, tile += T::bytes) {
            for (int quarter = 0; quarter < 4; ++quarter) {
                int32x4_t sums[N];
                block_sums<T, i8mm, N>(tile, quarter, rows[b], sums);
                const float32x4_t d = halves_of_rows(tile + T::d_at, quarter);
                if constexpr (T::has_min) {
                    const float32x4_t dmin = halves_of_rows(tile + T::dmin_at, quarter);
                    int32x4_t         mins[N];
                    for (int i = 0; i < N; ++i) {
                        mins[i] = vdupq_n_s32(0);
                    }
                    for (int k = 0; k < QK_K / 16; ++k) {
                        const int32x4_t min = T::min(tile, quarter, k);
                        for (int i = 0; i < N; ++i) {
                            mins[i] = vmlaq_n_s32(mins[i], min, rows[b].sums[i][k]);
                        }
                    }
                    for (int i = 0; i < N; ++i) {
                        acc[quarter][i] =
                            vfmaq_f32(acc[quarter][i], vcvtq_f32_s32(mins[i]), vmulq_n_f32(dmin, -rows[b].d[i]));
                    }
                }
                for (int i = 0; i < N; ++i) {
                    acc[quarter][i] = vfmaq_f32(acc[quarter][i], vcvtq_f32_s32(sums[i]), vmulq_n_f32(d, rows[b].d[i]));
                }
            }
        }
        for (int quarter = 0; quarter < 4; ++quarter) {
            for (int i = 0; i < N; ++i) {
                vst1q_f32(p.out + size_t(i) * p.out_stride + size_t(r) + 4 * quarter, acc[quarter][i]);
            }
        }
    }
}

template <bool wants_i8mm, int N> ColumnKernel column_kernel(int type) {
    constexpr bool i8mm = wants_i8mm && N > 1;
    const auto     of   = [](Kernel multiply) -> ColumnKernel {
        return { sizeof(PackedRows<i8mm, N, QK_K>), pack_to<block_q8_K, i8mm, N, QK_K>, multiply };
    };
    switch (type) {
        case GGML_TYPE_Q2_K: return of(multiply_columns_k<Q2_KColumns, i8mm, N>);
        case GGML_TYPE_Q3_K: return of(multiply_columns_k<Q3_KColumns, i8mm, N>);
        case GGML_TYPE_IQ4_XS: return of(multiply_columns_k<IQ4_XSColumns, i8mm, N>);
        default: return {};
    }
}

template <bool i8mm> ColumnKernel find_columns(int type, int64_t n_rows) {
    return for_rows(n_rows, [=](auto n) { return column_kernel<i8mm, decltype(n)::value>(type); });
}

} // namespace
} // namespace specee::small_batch
