// Activations in the order in which kernels for tiles of 16 weight rows read them, whatever the width of their vectors.
#pragma once

#include "each.h"
#include "x86_common.h"

namespace specee::small_batch {
namespace {

constexpr int tile_rows     = 16;
constexpr int n_lanes       = 8;
constexpr int columns_ahead = 16384; // bytes

// ---- types with a scale for each 32 weights: lanes are added as floats ----

template <class T, int N> struct Row32 {
    int8_t  x[N][32];
    int32_t start[T::offset ? N : 1][n_lanes]; // of a lane's sum: weights are stored too large by a constant
    float   d[N], s[T::has_min ? N : 1];
};

template <class T, int N> void pack_columns_32(const specee_product & p, void * to) {
    auto * const packed = static_cast<Row32<T, N> *>(to);
    for (int i = 0; i < N; ++i) {
        const auto * row = reinterpret_cast<const typename T::RowBlock *>(row_of(p, i));
        for (int64_t b = 0; b < p.n_in / 32; ++b) {
            const __m256i x = load_bytes(row[b].qs);
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(packed[b].x[i]), x);
            packed[b].d[i] = half_to_float(row[b].d);
            if constexpr (T::has_min) {
                packed[b].s[i] = half_to_float(row[b].s);
            }
            if constexpr (T::offset != 0) {
                const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), x);
                const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(-T::offset));
                _mm256_storeu_si256(reinterpret_cast<__m256i *>(packed[b].start[i]), fours);
            }
        }
    }
}

// ---- types with a scale for each 32 weights: these 32 are added as integers ----

template <int N> struct TileRows32 {
    int8_t  x[N][32];
    int32_t start[N]; // of the sum: weights are stored, or made, too large by a constant
    float   d[N], s[N];
};

template <class T, int N> void pack_tile_rows_32(const specee_product & p, void * to) {
    const int64_t n_blocks = p.n_in / 32;
    auto * const  packed   = static_cast<TileRows32<N> *>(to);
    for (int i = 0; i < N; ++i) {
        const auto * row = reinterpret_cast<const typename T::RowBlock *>(row_of(p, i));
        for (int64_t b = 0; b < n_blocks; ++b) {
            std::memcpy(packed[b].x[i], row[b].qs, 32);
            const __m256i ones = _mm256_set1_epi8(1);
            const __m256i sums = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, load_bytes(row[b].qs)), // of four each
                                                   _mm256_set1_epi16(-T::offset));
            __m128i       sum  = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
            sum                = _mm_add_epi32(sum, _mm_srli_si128(sum, 8));
            packed[b].start[i] = _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_srli_si128(sum, 4)));
            packed[b].d[i]     = half_to_float(row[b].d);
            if constexpr (T::has_min) {
                packed[b].s[i] = half_to_float(row[b].s);
            }
        }
    }
}

// ---- types with a scale for each 256 weights ----

// A block, and what a lane's product with each 32 weights starts from where they are stored too large by `offset`: less
// `offset` times the four activations that it meets.
template <int offset> struct StartedBlock : block_q8_K {
    int32_t start[8][n_lanes];
};

template <int offset> void start(StartedBlock<offset> & block) {
    for (int b = 0; b < 8; ++b) {
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), load_bytes(block.qs + 32 * b));
        const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(-offset));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(block.start[b]), fours);
    }
}
inline void start(block_q8_K &) {}

// Blocks of all rows next to each other.
template <class Block, int N> void pack_columns_256(const specee_product & p, void * to) {
    auto * packed = static_cast<Block *>(to);
    for (int64_t b = 0; b < p.n_in / QK_K; ++b) {
        for (int i = 0; i < N; ++i) {
            static_cast<block_q8_K &>(*packed) = reinterpret_cast<const block_q8_K *>(row_of(p, i))[b];
            start(*packed++);
        }
    }
}

} // namespace
} // namespace specee::small_batch
