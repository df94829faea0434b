// Half tiles of the types with a scale for each 256 weights: Q2_K to Q6_K, IQ4_XS.
#pragma once

#include "x86_half_tiles.h"

namespace specee::small_batch {
namespace {

// A block of activations, and the sums of 32 each.
struct Block256 : block_q8_K {
    int16_t sums32[8];
};
// Blocks of N rows next to each other; what is missing is the last row once more.
template <int N> void pack_half_columns_256(const specee_product & p, void * to) {
    auto * packed = static_cast<Block256 *>(to);
    for (int64_t b = 0; b < p.n_in / QK_K; ++b) {
        for (int i = 0; i < N; ++i, ++packed) {
            const int row                      = int(std::min<int64_t>(i, p.n_rows - 1));
            static_cast<block_q8_K &>(*packed) = reinterpret_cast<const block_q8_K *>(row_of(p, row))[b];
            for (int k = 0; k < 8; ++k) {
                packed->sums32[k] = int16_t(packed->bsums[2 * k] + packed->bsums[2 * k + 1]);
            }
        }
    }
}

inline __m256i two_sums(const int16_t * sums) { // for each weight row
    return four_for_half(reinterpret_cast<const int8_t *>(sums));
}

// x, and the compiler adds what comes later after it: in an order of its own it runs out of registers.
inline __m256i in_order(__m256i x) {
    asm("" : "+x"(x));
    return x;
}

// Bytes `first` and `second` of each 32 bits, as 16 bits each: unsigned, or with their sign.
template <int first, int second> inline __m256i unsigned_bytes(__m256i x) {
    constexpr int places = first | 0x8000 | second << 16 | int(0x80000000);
    return _mm256_shuffle_epi8(
        x, _mm256_add_epi32(_mm256_set1_epi32(places), // the places of the first row of each 128 bits
                            _mm256_setr_epi32(0, 0x40004, 0x80008, 0xc000c, 0, 0x40004, 0x80008, 0xc000c)));
}
template <int first, int second> inline __m256i signed_bytes(__m256i x) {
    constexpr int places = 0x80 | first << 8 | 0x800000 | second << 24;
    const __m256i up     = _mm256_shuffle_epi8(
        x, _mm256_add_epi32(_mm256_set1_epi32(places),
                            _mm256_setr_epi32(0, 0x4000400, 0x8000800, 0xc000c00, 0, 0x4000400, 0x8000800, 0xc000c00)));
    return _mm256_srai_epi16(up, 8);
}
template <int bits> inline __m256i shifted_right(__m256i x) { // to the left when negative
    if constexpr (bits >= 0) {
        return _mm256_srli_epi16(x, bits);
    } else {
        return _mm256_slli_epi16(x, -bits);
    }
}

// What the types below say. `weights`: four neighbouring weights of eight rows, the lane-th of the b-th 32, from half a
// tile (`half` points to its first vector). `most`: the largest one. `scale[j][b]`: of lanes 4j to 4j + 3 of the b-th
// 32 weights (j is 0 where all eight have the same), 16 bits, twice. `for_sums[k]`: what the k-th two sums of
// activations (of 32 weights each, or of 16 where these have a scale) are to be multiplied with: mins, or -offset times
// the scales.

struct HalfQ6_K {
    using Block                   = block_q6_K;
    static constexpr bool has_min = false, is_signed = false;
    static constexpr int  bytes = 16 * sizeof(Block), d_at = 3072 + 256, of_scale = 16, most = 63;

    template <int b> static __m256i weights(const char * half, int lane) {
        const char * const at    = half + 384 * lane + 192 * (b / 4);
        constexpr int      k     = b % 4;
        const __m256i      lower = half_nibbles<k / 2>(at + 64 * (k % 2));
        return or_masked(lower, shifted_right<2 * k - 4>(half_at(at + 128)), _mm256_set1_epi8(0x30));
    }
    static void load_scales(const char * tile, int h, __m256i (*scale)[8], __m256i * for_sums) {
        each<8>([&](auto k) {
            __m256i s[2];
            each<2>([&](auto j) {
                const char * const at = tile + 3072 + 16 * (2 * k + j) + 8 * h;
                s[j]                  = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(at)));
                scale[j][k]           = _mm256_blend_epi16(s[j], _mm256_slli_epi32(s[j], 16), 0xaa);
            });
            const __m256i two = _mm256_blend_epi16(s[0], _mm256_slli_epi32(s[1], 16), 0xaa);
            for_sums[k]       = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16(two, 5));
        });
    }
};

// The 6-bit scales and mins of Q4_K and Q5_K.
inline void load_half_k_scales(const char * packed, __m256i * scale, __m256i * for_sums) {
    const __m256i six = _mm256_set1_epi32(0x3f3f3f3f), four = _mm256_set1_epi32(0x0f0f0f0f);
    const __m256i two = _mm256_set1_epi32(0x30303030);
    const __m256i u0 = half_at(packed), u1 = half_at(packed + 64), u2 = half_at(packed + 128); // as scales_and_mins
    const __m256i s[2] = { _mm256_and_si256(u0, six),
                           or_masked(_mm256_and_si256(u2, four), _mm256_srli_epi32(u0, 2), two) };
    const __m256i m[2] = { _mm256_and_si256(u1, six),
                           or_masked(_mm256_and_si256(_mm256_srli_epi32(u2, 4), four), _mm256_srli_epi32(u1, 2), two) };
    each<8>([&](auto b) { scale[b] = unsigned_bytes<b % 4, b % 4>(s[b / 4]); });
    each<4>([&](auto k) { for_sums[k] = unsigned_bytes<k % 2 * 2, k % 2 * 2 + 1>(m[k / 2]); });
}

struct HalfQ4_K {
    using Block                   = block_q4_K;
    static constexpr bool has_min = true, is_signed = false;
    static constexpr int  bytes = 16 * sizeof(Block), d_at = 2048 + 192, of_scale = 32, most = 15;

    template <int b> static __m256i weights(const char * half, int lane) {
        return half_nibbles<b % 2>(half + 512 * (b / 2) + 64 * lane);
    }
    static void load_scales(const char * tile, int h, __m256i (*scale)[8], __m256i * for_sums) {
        load_half_k_scales(tile + 2048 + 32 * h, scale[0], for_sums);
    }
};

struct HalfQ5_K {
    using Block                   = block_q5_K;
    static constexpr bool has_min = true, is_signed = false;
    static constexpr int  bytes = 16 * sizeof(Block), d_at = 2560 + 192, of_scale = 32, most = 31;

    template <int b> static __m256i weights(const char * half, int lane) {
        const char * const at = half + 320 * lane;
        return or_masked(half_nibbles<b % 2>(at + 64 * (b / 2)), shifted_right<b - 4>(half_at(at + 256)),
                         _mm256_set1_epi8(16));
    }
    static void load_scales(const char * tile, int h, __m256i (*scale)[8], __m256i * for_sums) {
        load_half_k_scales(tile + 2560 + 32 * h, scale[0], for_sums);
    }
};

struct HalfQ2_K {
    using Block                   = block_q2_K;
    static constexpr bool has_min = true, is_signed = false;
    static constexpr int  bytes = 16 * sizeof(Block), d_at = 1024 + 256, of_scale = 16, most = 3;

    template <int b> static __m256i weights(const char * half, int lane) {
        return _mm256_and_si256(shifted_right<b % 4 * 2>(half_at(half + 512 * (b / 4) + 64 * lane)),
                                _mm256_set1_epi8(3));
    }
    static void load_scales(const char * tile, int h, __m256i (*scale)[8], __m256i * for_sums) {
        const __m256i four = _mm256_set1_epi8(15);
        each<4>([&](auto k) { // 64 weights
            const __m256i both = half_at(tile + 1024 + 64 * k + 32 * h);
            const __m256i s    = _mm256_and_si256(both, four);
            const __m256i m    = _mm256_and_si256(_mm256_srli_epi16(both, 4), four);
            each<2>([&](auto i) {
                each<2>([&](auto j) { scale[j][2 * k + i] = unsigned_bytes<2 * i + j, 2 * i + j>(s); });
                for_sums[2 * k + i] = unsigned_bytes<2 * i, 2 * i + 1>(m);
            });
        });
    }
};

struct HalfQ3_K { // weights are stored + 4
    using Block                   = block_q3_K;
    static constexpr bool has_min = false, is_signed = true;
    static constexpr int  bytes = 16 * sizeof(Block), d_at = 1536 + 192, of_scale = 16, most = 4;

    template <int b> static __m256i weights(const char * half, int lane) {
        const char * const at = half + 192 * lane;
        const __m256i      lower =
            _mm256_and_si256(shifted_right<b % 4 * 2>(half_at(at + 64 * (b / 4))), _mm256_set1_epi8(3));
        const __m256i w = or_masked(lower, shifted_right<b - 2>(half_at(at + 128)), _mm256_set1_epi8(4));
        return _mm256_sub_epi8(w, _mm256_set1_epi8(4));
    }
    static void load_scales(const char * tile, int h, __m256i (*scale)[8], __m256i *) {
        const char * const at = tile + 1536 + 32 * h;
        const __m256i      up = half_at(at + 128);
        each<4>([&](auto k) { // 64 weights
            const __m256i low =
                _mm256_and_si256(shifted_right<k / 2 * 4>(half_at(at + 64 * (k % 2))), _mm256_set1_epi8(15));
            const __m256i s = _mm256_sub_epi8(or_masked(low, shifted_right<2 * k - 4>(up), _mm256_set1_epi8(0x30)),
                                              _mm256_set1_epi8(32));
            each<4>([&](auto i) { scale[i % 2][2 * k + i / 2] = signed_bytes<i, i>(s); });
        });
    }
};

struct HalfIQ4_XS {
    using Block                   = block_iq4_xs;
    static constexpr bool has_min = false, is_signed = true;
    static constexpr int  bytes = 16 * sizeof(Block), d_at = 2048 + 96, of_scale = 32, most = 127;

    template <int b> static __m256i weights(const char * half, int lane) {
        const __m256i raw     = half_at(half + 512 * (lane % 4) + 64 * b);
        const __m256i nibbles = _mm256_srl_epi16(raw, _mm_cvtsi32_si128(lane < 4 ? 0 : 4));
        return look_up_half(iq4_values, _mm256_and_si256(nibbles, _mm256_set1_epi8(15)));
    }
    static void load_scales(const char * tile, int h, __m256i (*scale)[8], __m256i *) {
        const __m256i low = half_at(tile + 2048 + 32 * h);
        const auto *  at  = reinterpret_cast<const __m128i *>(tile + 2048 + 64 + 16 * h);
        const __m256i up  = _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(at)), 4);
        each<8>([&](auto b) {
            const __m256i six = or_masked(_mm256_and_si256(_mm256_srli_epi32(low, 4 * b), _mm256_set1_epi32(15)),
                                          _mm256_srli_epi32(up, 2 * b), _mm256_set1_epi32(0x30));
            const __m256i s   = _mm256_sub_epi32(six, _mm256_set1_epi32(32));
            scale[0][b]       = _mm256_blend_epi16(s, _mm256_slli_epi32(s, 16), 0xaa);
        });
    }
};

// As ggml adds rows as in the file: lane by lane. ggml adds the mins of Q2_K to the lanes, those of Q5_K once at the
// end, and what Q6_K stores too much to the lanes.
template <class V, class T, int N> [[gnu::flatten]] void multiply_half_lanes(const specee_product & p) {
    constexpr bool sums_in_lanes = T::of_scale == 16 && !T::is_signed, sums_at_end = T::has_min && !sums_in_lanes;
    const int64_t  n_blocks = p.n_in / QK_K;
    const auto *   rows     = static_cast<const Block256 *>(p.rows);
    const char *   tile     = static_cast<const char *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += tile_rows) {
        __m256 acc[2][n_lanes][N] = {}, mins[2][N] = {};
        for (int64_t b = 0; b < n_blocks; ++b, tile += T::bytes) {
            const Block256 * const row = rows + b * N;
            for (int h = 0; h < 2; ++h) {
                __m256i      scale[2][8], for_sums[8];
                __m256       scale_of_both[N], least_scale[N];
                const __m256 d = eight_halves_at(tile + T::d_at + 16 * h);
                T::load_scales(tile, h, scale, for_sums);
                each<N>([&](auto i) { scale_of_both[i] = _mm256_mul_ps(d, _mm256_set1_ps(row[i].d)); });
                if constexpr (T::has_min) {
                    const __m256 dmin = eight_halves_at(tile + T::d_at + 32 + 16 * h);
                    each<N>([&](auto i) { least_scale[i] = _mm256_mul_ps(dmin, _mm256_set1_ps(row[i].d)); });
                }
                for (int lane = 0; lane < n_lanes; ++lane) {
                    for (int at = 0; at < T::bytes / 16; at += 64) {
                        _mm_prefetch(tile + columns_ahead + T::bytes / 16 * (n_lanes * h + lane) + at, _MM_HINT_T0);
                    }
                    const __m256i * const s = scale[T::of_scale == 16 ? lane / 4 : 0];
                    __m256i               sum[N];
                    each<N>([&](auto i) { sum[i] = _mm256_setzero_si256(); });
                    if constexpr (sums_in_lanes && !T::has_min) {
                        each<N>([&](auto i) {
                            sum[i] = V::scaled(sum[i], for_sums[lane], two_sums(row[i].bsums + 2 * lane));
                        });
                    }
                    each<8>([&](auto k) {
                        const __m256i w = T::template weights<k>(tile + 32 * h, lane);
                        each<N>([&](auto i) {
                            const __m256i x    = four_for_half(row[i].qs + 32 * k + 4 * lane);
                            const __m256i dots = T::is_signed ? V::signed_pairs(w, x) : _mm256_maddubs_epi16(w, x);
                            sum[i]             = in_order(V::scaled(sum[i], dots, s[k]));
                        });
                    });
                    each<N>([&](auto i) {
                        __m256 to = acc[h][lane][i];
                        if constexpr (sums_in_lanes && T::has_min) {
                            const __m256i least = _mm256_madd_epi16(for_sums[lane], two_sums(row[i].bsums + 2 * lane));
                            to                  = _mm256_fnmadd_ps(least_scale[i], _mm256_cvtepi32_ps(least), to);
                        }
                        acc[h][lane][i] = _mm256_fmadd_ps(scale_of_both[i], _mm256_cvtepi32_ps(sum[i]), to);
                    });
                }
                if constexpr (sums_at_end) {
                    each<N>([&](auto i) {
                        __m256i least = _mm256_setzero_si256();
                        each<4>(
                            [&](auto k) { least = V::scaled(least, for_sums[k], two_sums(row[i].sums32 + 2 * k)); });
                        mins[h][i] = _mm256_fnmadd_ps(least_scale[i], _mm256_cvtepi32_ps(least), mins[h][i]);
                    });
                }
            }
        }
        each<2>([&](auto h) {
            each<N>([&](auto i) { // as hsum_float_8
                __m256 pair[4];
                each<4>([&](auto k) { pair[k] = _mm256_add_ps(acc[h][k][i], acc[h][k + 4][i]); });
                __m256 sum = _mm256_add_ps(_mm256_add_ps(pair[0], pair[2]), _mm256_add_ps(pair[1], pair[3]));
                sum        = sums_at_end ? _mm256_add_ps(sum, mins[h][i]) : sum;
                _mm256_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r) + half_rows * h, sum);
            });
        });
    }
}

} // namespace
} // namespace specee::small_batch
