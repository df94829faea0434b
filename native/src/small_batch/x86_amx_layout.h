// ggml's AMX layout: tiles of 16 weight rows by 32 or 256 weights, one tile after the other along the rows. Four
// neighbouring weights of each of the 16 rows are a vector of 64 numbers; types of 4 bits hold two vectors in one, the
// second one in the upper nibbles. Scales follow: a vector of 16 for each group of 16 or 32 weights.
//
// A lane of an accumulator is a weight row, so floats are added in the order of the blocks, as ggml's kernel does.
#pragma once

#include "x86_tiles.h"

namespace specee::small_batch {
namespace {

// ---- types with a scale for each 32 weights ----

// T: scales(tile), load(tile, w[8]); weights + offset, unsigned.
template <class T> struct Tiles32 : T {
    static constexpr int                          weights = 32;
    template <int N> static const TileRows32<N> * pack(const specee_product & p) {
        void * const to = scratch(size_t(p.n_in / 32) * sizeof(TileRows32<N>));
        pack_tile_rows_32<T, N>(p, to);
        return static_cast<const TileRows32<N> *>(to);
    }
    template <int N> static void add(const char * tile, const TileRows32<N> & row, __m512 * acc) {
        prefetch(tile, T::bytes);
        __m512i w[8];
        T::load(tile, w);
        const __m512 d = T::scales(tile);
        each<N>([&](auto i) {
            const __m512i sum = dot<8>(_mm512_set1_epi32(row.start[i]), w, row.x[i]);
            acc[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(d, _mm512_set1_ps(row.d[i])), acc[i]);
            if constexpr (T::has_min) {
                acc[i] = _mm512_fmadd_ps(halves_at(tile + T::d_at + 32), _mm512_set1_ps(row.s[i]), acc[i]);
            }
        });
    }
};

template <bool has_minimum> struct Nibbles32 {
    static constexpr bool has_min = has_minimum;
    static constexpr int  d_at = 256, bytes = has_min ? 320 : 288, offset = has_min ? 0 : 8;
    static __m512         scales(const char * tile) { return halves_at(tile + d_at); }
    static void           load(const char * tile, __m512i * w) {
        each<4>([&](auto j) { load_nibbles(tile + 64 * j, &w[2 * j], &w[2 * j + 1]); });
    }
};
struct Q4_0Tile : Nibbles32<false> {
    using RowBlock = block_q8_0;
};
struct Q4_1Tile : Nibbles32<true> {
    using RowBlock = block_q8_1;
};
struct Q8_0Tile { // 512 weights, 16 scales, 16 sums for ggml's own kernel
    using RowBlock                = block_q8_0;
    static constexpr bool has_min = false;
    static constexpr int  d_at = 512, bytes = 608, offset = 128;
    static __m512         scales(const char * tile) { return halves_at(tile + d_at); }
    static void           load(const char * tile, __m512i * w) {
        each<8>([&](auto k) { w[k] = _mm512_xor_si512(vector_at(tile + 64 * k), _mm512_set1_epi8(-128)); });
    }
};
using TilesQ4_0 = Tiles32<Q4_0Tile>;
using TilesQ4_1 = Tiles32<Q4_1Tile>;
using TilesQ8_0 = Tiles32<Q8_0Tile>;

// ---- types with a scale for each 256 weights ----

template <int N> struct alignas(64) TileRows256 {
    int8_t  x[N][QK_K];
    int32_t start[N][16]; // Q6_K: -32 * (sum of 16 numbers)
    int16_t sums32[N][8];
    float   d[N];
};

template <int N> const TileRows256<N> * pack_tile_rows_256(const specee_product & p) {
    const int64_t n_blocks = p.n_in / QK_K;
    auto * const  packed   = static_cast<TileRows256<N> *>(scratch(size_t(n_blocks) * sizeof(TileRows256<N>)));
    for (int i = 0; i < N; ++i) {
        const auto * row = reinterpret_cast<const block_q8_K *>(row_of(p, i));
        for (int64_t b = 0; b < n_blocks; ++b) {
            std::memcpy(packed[b].x[i], row[b].qs, QK_K);
            for (int k = 0; k < 16; ++k) {
                packed[b].start[i][k] = -32 * row[b].bsums[k];
            }
            for (int k = 0; k < 8; ++k) {
                packed[b].sums32[i][k] = int16_t(row[b].bsums[2 * k] + row[b].bsums[2 * k + 1]);
            }
            packed[b].d[i] = row[b].d;
        }
    }
    return packed;
}

struct Tiles256 {
    static constexpr int                           weights = QK_K;
    template <int N> static const TileRows256<N> * pack(const specee_product & p) { return pack_tile_rows_256<N>(p); }
};

// Q4_K and Q5_K: quants of 8 groups, fifth bits of 8 groups (bit k of a byte: vector k), 8 * 16 scales, 16 mins for two
// groups at a time, 16 scales and 16 minimums of all.
template <bool fifth_bits> struct TilesK : Tiles256 {
    static constexpr int scales_at = fifth_bits ? 2560 : 2048, mins_at = scales_at + 128, d_at = mins_at + 128;
    static constexpr int bytes = d_at + 64;

    static void load(const char * tile, int group, __m512i * w) {
        each<4>([&](auto j) { load_nibbles(tile + 256 * group + 64 * j, &w[2 * j], &w[2 * j + 1]); });
        if constexpr (fifth_bits) {
            const __m512i bits = vector_at(tile + 2048 + 64 * group), sixteen = _mm512_set1_epi8(16);
            each<4>([&](auto k) {
                w[k]     = or_masked(w[k], _mm512_slli_epi16(bits, 4 - k), sixteen);
                w[k + 4] = or_masked(w[k + 4], _mm512_srli_epi16(bits, k), sixteen);
            });
        }
    }

    template <int N> static void add(const char * tile, const TileRows256<N> & row, __m512 * acc) {
        __m512i sums[N];
        each<N>([&](auto i) { sums[i] = _mm512_setzero_si512(); });
        for (int group = 0; group < 8; ++group) {
            prefetch(tile + bytes / 8 * group, bytes / 8);
            __m512i w[8];
            load(tile, group, w);
            const auto *  s     = reinterpret_cast<const __m128i *>(tile + scales_at + 16 * group);
            const __m512i scale = _mm512_cvtepu8_epi32(_mm_loadu_si128(s));
            each<N>([&](auto i) {
                const int8_t * const x = row.x[i] + 32 * group;
                if constexpr (fifth_bits) {
                    const __m512i sum = dot<8>(_mm512_setzero_si512(), w, x);
                    sums[i]           = _mm512_add_epi32(sums[i], _mm512_mullo_epi32(sum, scale));
                } else { // 16 products of 15 * 127 fit into 16 bits
                    sums[i] = _mm512_dpwssd_epi32(sums[i], dot<4>(_mm512_setzero_si512(), w, x), scale);
                    sums[i] = _mm512_dpwssd_epi32(sums[i], dot<4>(_mm512_setzero_si512(), w + 4, x + 16), scale);
                }
            });
        }
        __m512i min[4];
        each<4>([&](auto k) { min[k] = _mm512_cvtepu8_epi16(load_bytes(tile + mins_at + 32 * k)); });
        const __m512 d = halves_at(tile + d_at), dmin = halves_at(tile + d_at + 32);
        each<N>([&](auto i) {
            __m512i mins = _mm512_setzero_si512();
            each<4>([&](auto k) {
                const auto * two = reinterpret_cast<const int8_t *>(row.sums32[i] + 2 * k);
                mins             = _mm512_dpwssd_epi32(mins, min[k], four_of(two));
            });
            const __m512 scale = _mm512_set1_ps(row.d[i]);
            acc[i]             = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i]), _mm512_mul_ps(d, scale), acc[i]);
            acc[i]             = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(mins), _mm512_mul_ps(dmin, scale), acc[i]);
        });
    }
};
using TilesQ4_K = TilesK<false>;
using TilesQ5_K = TilesK<true>;

// 16 groups of lower nibbles, their upper bits (bits 2k and 2k + 1 of a byte: vector k), 16 * 16 scales, 16 of all.
struct TilesQ6_K : Tiles256 {
    static constexpr int scales_at = 3072, d_at = scales_at + 256, bytes = d_at + 32;

    template <int N> static void add(const char * tile, const TileRows256<N> & row, __m512 * acc) {
        __m512i sums[N];
        each<N>([&](auto i) { sums[i] = _mm512_setzero_si512(); });
        const __m512i two_bits = _mm512_set1_epi8(0x30);
        for (int group = 0; group < 16; ++group) {
            prefetch(tile + bytes / 16 * group, bytes / 16);
            __m512i w[4];
            each<2>([&](auto j) { load_nibbles(tile + 128 * group + 64 * j, &w[2 * j], &w[2 * j + 1]); });
            const __m512i bits  = vector_at(tile + 2048 + 64 * group);
            w[0]                = or_masked(w[0], _mm512_slli_epi16(bits, 4), two_bits);
            w[1]                = or_masked(w[1], _mm512_slli_epi16(bits, 2), two_bits);
            w[2]                = or_masked(w[2], bits, two_bits);
            w[3]                = or_masked(w[3], _mm512_srli_epi16(bits, 2), two_bits);
            const auto *  s     = reinterpret_cast<const __m128i *>(tile + scales_at + 16 * group);
            const __m512i scale = _mm512_cvtepi8_epi32(_mm_loadu_si128(s));
            each<N>([&](auto i) {
                const __m512i sum = dot<4>(_mm512_set1_epi32(row.start[i][group]), w, row.x[i] + 16 * group);
                sums[i]           = _mm512_add_epi32(sums[i], _mm512_mullo_epi32(sum, scale));
            });
        }
        const __m512 d = halves_at(tile + d_at);
        each<N>([&](auto i) {
            const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(row.d[i]));
            acc[i]             = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i]), scale, acc[i]);
        });
    }
};

// flatten: all of it in one function, or GCC leaves the lambdas of several rows outside and the vectors in memory
template <class T, int N, class Rows>
[[gnu::flatten]] void multiply_packed(const specee_product & p, const Rows * rows) {
    const int64_t n_blocks = p.n_in / T::weights;
    const char *  tile     = static_cast<const char *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += tile_rows) {
        __m512 acc[N];
        each<N>([&](auto i) { acc[i] = _mm512_setzero_ps(); });
        for (int64_t b = 0; b < n_blocks; ++b, tile += T::bytes) {
            T::template add<N>(tile, rows[b], acc);
        }
        each<N>([&](auto i) { _mm512_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r), acc[i]); });
    }
}

template <class T, int N> void multiply_tiles(const specee_product & p) {
    multiply_packed<T, N>(p, T::template pack<N>(p));
}

} // namespace
} // namespace specee::small_batch
