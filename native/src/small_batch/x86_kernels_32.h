// Types with a scale for each 32 weights, rows as in the file: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
#pragma once

#include "x86_common.h"

namespace specee::small_batch {
namespace {

// A weight is d * (stored - bias), or d * stored + m.
struct Q4_0 {
    using Block                   = block_q4_0;
    using Row                     = block_q8_0;
    static constexpr int  bias    = 8;
    static constexpr bool nibbles = true, fifth_bits = false;
    static constexpr bool has_min = false, is_signed = false;
    static __m256i        load(const char * w) { return load_nibbles(reinterpret_cast<const Block *>(w)->qs); }
};

struct Q5_0 {
    using Block                   = block_q5_0;
    using Row                     = block_q8_0;
    static constexpr int  bias    = 16;
    static constexpr bool nibbles = true, fifth_bits = true;
    static constexpr bool has_min = false, is_signed = false;
    static __m256i        load(const char * w) {
        const auto & b = *reinterpret_cast<const Block *>(w);
        return _mm256_or_si256(load_nibbles(b.qs), load_bits(b.qh));
    }
};

struct Q4_1 {
    using Block                   = block_q4_1;
    using Row                     = block_q8_1;
    static constexpr int  bias    = 0;
    static constexpr bool nibbles = true, fifth_bits = false;
    static constexpr bool has_min = true, is_signed = false;
    static __m256i        load(const char * w) { return load_nibbles(reinterpret_cast<const Block *>(w)->qs); }
};

struct Q5_1 {
    using Block                   = block_q5_1;
    using Row                     = block_q8_1;
    static constexpr int  bias    = 0;
    static constexpr bool nibbles = true, fifth_bits = true;
    static constexpr bool has_min = true, is_signed = false;
    static __m256i        load(const char * w) {
        const auto & b = *reinterpret_cast<const Block *>(w);
        return _mm256_or_si256(load_nibbles(b.qs), load_bits(b.qh));
    }
};

template <bool vnni> struct Q8_0 {
    using Block                   = block_q8_0;
    using Row                     = block_q8_0;
    static constexpr int  bias    = vnni ? 128 : 0;
    static constexpr bool nibbles = false;
    static constexpr bool has_min = false, is_signed = !vnni;
    static __m256i        load(const char * w) {
        const __m256i x = load_bytes(reinterpret_cast<const Block *>(w)->qs);
        return vnni ? _mm256_xor_si256(x, _mm256_set1_epi8(-128)) : x;
    }
};

template <class V, class T, int N> struct alignas(32) Rows32 {
    static constexpr int n_weights  = V::rows * V::rows;    // weight rows at a time
    static constexpr int per_vector = V::lanes / n_weights; // rows whose sums of mins share a vector
    static constexpr int n_mins     = T::has_min ? (N + per_vector - 1) / per_vector : 0;

    int8_t  x[N][32];
    int32_t correction[T::bias ? N : 1][8];        // -bias * (sum of four numbers)
    float   s[T::has_min ? n_mins * V::lanes : 1]; // d * (sum of the 32 numbers), n_weights times
    float   d[N];
};

template <class V, class T, int N> const Rows32<V, T, N> * pack_32(const specee_product & p) {
    using Packed           = Rows32<V, T, N>;
    const int64_t n_blocks = p.n_in / 32;
    auto * const  packed   = static_cast<Packed *>(scratch(size_t(n_blocks) * sizeof(Packed)));
    for (int i = 0; i < N; ++i) {
        const auto * row = reinterpret_cast<const typename T::Row *>(row_of(p, i));
        for (int64_t b = 0; b < n_blocks; ++b) {
            Packed &      to = packed[b];
            const __m256i x  = load_bytes(row[b].qs);
            _mm256_store_si256(reinterpret_cast<__m256i *>(to.x[i]), x);
            to.d[i] = half_to_float(row[b].d);
            if constexpr (T::has_min) {
                std::fill_n(to.s + i * Packed::n_weights, Packed::n_weights, half_to_float(row[b].s));
            }
            if constexpr (T::bias != 0) {
                const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), x);
                const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(-T::bias));
                _mm256_store_si256(reinterpret_cast<__m256i *>(to.correction[i]), fours);
            }
        }
    }
    return packed;
}

template <class V, class T, int N> void multiply_32(const specee_product & p) {
    using Rows                  = Rows32<V, T, N>;
    constexpr int      G        = V::rows; // vectors of weight rows at a time
    constexpr int      R        = Rows::n_weights;
    const int64_t      n_blocks = p.n_in / 32;
    const Rows * const rows     = pack_32<V, T, N>(p);
    for (int64_t at = 0; at < p.n_out; at += R) {
        const int64_t     r = at + R <= p.n_out ? at : p.n_out - R; // the last ones may be done twice
        const char *      w = static_cast<const char *>(p.weights) + size_t(r) * p.weights_stride;
        typename V::Float acc[N][G], mins[Rows::n_mins + 1] = {};
        for (int i = 0; i < N; ++i) {
            for (int g = 0; g < G; ++g) {
                acc[i][g] = V::fzero();
            }
        }
        const char * ahead = w;
        for (int64_t b = 0; b < n_blocks; ++b, w += sizeof(typename T::Block), ahead += R * sizeof(typename T::Block)) {
            prefetch(ahead, R * sizeof(typename T::Block));
            typename V::Int   q[G];
            typename V::Float d[G], m;
            for (int g = 0; g < G; ++g) {
                q[g] = V::template weights_32<T>(w + size_t(g * V::rows) * p.weights_stride, p.weights_stride);
            }
            uint32_t halves[R];
            for (int k = 0; k < R; ++k) {
                const auto & block = *reinterpret_cast<const typename T::Block *>(w + size_t(k) * p.weights_stride);
                halves[k]          = block.d;
                if constexpr (T::has_min) {
                    halves[k] = block.dm;
                }
            }
            V::scales(halves, d, m);
            const Rows & row = rows[b];
            for (int i = 0; i < N; ++i) {
                const auto x     = V::broadcast(row.x[i]);
                const auto scale = V::fset1(row.d[i]);
                for (int g = 0; g < G; ++g) {
                    typename V::Int dot;
                    if constexpr (T::is_signed) {
                        dot = V::signed_dot(q[g], x);
                    } else if constexpr (T::bias == 0) {
                        dot = V::sum(V::dot(V::zero(), q[g], x));
                    } else if constexpr (V::vnni) {
                        dot = V::dot(V::broadcast(row.correction[i]), q[g], x);
                    } else {
                        dot = V::add(V::sum(V::dot(V::zero(), q[g], x)), V::broadcast(row.correction[i]));
                    }
                    acc[i][g] = V::fma(V::mul(d[g], scale), V::to_float(dot), acc[i][g]);
                }
            }
            for (int i = 0; i < Rows::n_mins; ++i) {
                mins[i] = V::fma(m, V::load(row.s + i * V::lanes), mins[i]);
            }
        }
        float min[Rows::n_mins * V::lanes + 1];
        for (int i = 0; i < Rows::n_mins; ++i) {
            V::store(min + i * V::lanes, mins[i]);
        }
        for (int i = 0; i < N; ++i) {
            float sums[R];
            V::sums(acc[i], G, sums);
            for (int k = 0; k < R; ++k) {
                p.out[size_t(i) * p.out_stride + size_t(r) + k] = T::has_min ? sums[k] + min[i * R + k] : sums[k];
            }
        }
    }
}

} // namespace
} // namespace specee::small_batch
