// Types with a scale for each 256 weights, rows as in the file: Q4_K, Q5_K, Q6_K.
#pragma once

#include "x86_common.h"

#include <type_traits>

namespace specee::small_batch {
namespace {

template <int N> struct alignas(32) Rows256 {
    int8_t  x[N][QK_K];
    int16_t sums[N][16];  // of 16 numbers each
    int16_t sums32[N][8]; // of 32 numbers each
    float   d[N];
};

template <int N> const Rows256<N> * pack_256(const specee_product & p) {
    const int64_t n_blocks = p.n_in / QK_K;
    auto *        packed   = static_cast<Rows256<N> *>(scratch(size_t(n_blocks) * sizeof(Rows256<N>)));
    for (int i = 0; i < N; ++i) {
        const auto * row = reinterpret_cast<const block_q8_K *>(row_of(p, i));
        for (int64_t b = 0; b < n_blocks; ++b) {
            Rows256<N> & to = packed[b];
            std::memcpy(to.x[i], row[b].qs, QK_K);
            std::memcpy(to.sums[i], row[b].bsums, sizeof row[b].bsums);
            for (int k = 0; k < 8; ++k) {
                to.sums32[i][k] = int16_t(row[b].bsums[2 * k] + row[b].bsums[2 * k + 1]);
            }
            to.d[i] = row[b].d;
        }
    }
    return packed;
}

// The 6-bit scales (bytes 0 to 7) and mins (8 to 15) of Q4_K and Q5_K.
inline __m128i scales_and_mins(const uint8_t * packed) {
    uint32_t u[4];
    std::memcpy(u, packed, 12);
    u[3]                = ((u[2] >> 4) & 0x0f0f0f0f) | (((u[1] >> 6) & 0x03030303) << 4);
    const uint32_t kept = u[1] & 0x3f3f3f3f;
    u[1]                = (u[2] & 0x0f0f0f0f) | (((u[0] >> 6) & 0x03030303) << 4);
    u[2]                = kept;
    u[0] &= 0x3f3f3f3f;
    return _mm_loadu_si128(reinterpret_cast<const __m128i *>(u));
}

struct Q4_K {
    using Block                 = block_q4_K;
    static constexpr bool is_q6 = false;
    template <class V> struct Weights { // of one vector of rows, 64 at a time
        typename V::Int low, high;
        void            load(const char * w, size_t stride, int pair) {
            const auto raw = V::weights(w, stride, [pair](const char * row) {
                return load_bytes(reinterpret_cast<const Block *>(row)->qs + 32 * pair);
            });
            low            = V::low_nibbles(raw);
            high           = V::high_nibbles(raw);
        }
    };
};

struct Q5_K {
    using Block                 = block_q5_K;
    static constexpr bool is_q6 = false;
    template <class V> struct Weights {
        typename V::Int low, high;
        void            load(const char * w, size_t stride, int pair) {
            const auto raw     = V::weights(w, stride, [pair](const char * row) {
                return load_bytes(reinterpret_cast<const Block *>(row)->qs + 32 * pair);
            });
            const auto bits    = V::weights(w, stride, [pair](const char * row) { // bit 0: low, bit 1: high
                return _mm256_srl_epi16(load_bytes(reinterpret_cast<const Block *>(row)->qh),
                                        _mm_cvtsi32_si128(2 * pair));
            });
            const auto sixteen = V::set1(16);
            low                = V::or_(V::low_nibbles(raw), V::and_(V::template shift_left<4>(bits), sixteen));
            high               = V::or_(V::high_nibbles(raw), V::and_(V::template shift_left<3>(bits), sixteen));
        }
    };
};

// Q4_K and Q5_K, rows as in the file.
template <class V, class T, int N> void multiply_k(const specee_product & p) {
    using Int                         = typename V::Int;
    constexpr int            R        = V::rows;
    const int64_t            n_blocks = p.n_in / QK_K;
    const Rows256<N> * const rows     = pack_256<N>(p);
    for (int64_t at = 0; at < p.n_out; at += R) {
        const int64_t     r = at + R <= p.n_out ? at : p.n_out - R;
        const char *      w = static_cast<const char *>(p.weights) + size_t(r) * p.weights_stride;
        typename V::Float acc[N];
        __m128            mins[N][R]; // Q5_K: lane 0
        for (int i = 0; i < N; ++i) {
            acc[i] = V::fzero();
            for (int k = 0; k < R; ++k) {
                mins[i][k] = _mm_setzero_ps();
            }
        }
        const char * ahead = w;
        for (int64_t b = 0; b < n_blocks; ++b, w += sizeof(typename T::Block), ahead += R * sizeof(typename T::Block)) {
            prefetch(ahead, R * sizeof(typename T::Block));
            const auto block = [&](int k) -> const typename T::Block & {
                return *reinterpret_cast<const typename T::Block *>(w + size_t(k) * p.weights_stride);
            };
            __m256i scales_mins[R];
            __m128i min[R];
            for (int k = 0; k < R; ++k) {
                scales_mins[k] = _mm256_cvtepu8_epi16(scales_and_mins(block(k).scales));
                min[k]         = _mm256_extracti128_si256(scales_mins[k], 1);
            }
            const Int scale = V::of_rows(scales_mins);
            Int       sums[N];
            for (int i = 0; i < N; ++i) {
                sums[i] = V::zero();
            }
            const Rows256<N> & row = rows[b];
            for (int pair = 0; pair < QK_K / 64; ++pair) {
                typename T::template Weights<V> q;
                q.load(w, p.weights_stride, pair);
                const Int low = V::scale_one(scale, 2 * pair), high = V::scale_one(scale, 2 * pair + 1);
                for (int i = 0; i < N; ++i) {
                    const int8_t * const x = row.x[i] + 64 * pair;
                    sums[i]                = V::scaled(sums[i], V::dot(V::zero(), q.low, V::broadcast(x)), low);
                    sums[i]                = V::scaled(sums[i], V::dot(V::zero(), q.high, V::broadcast(x + 32)), high);
                }
            }
            const auto d = V::per_row(w, p.weights_stride, scale_of<T>);
            for (int i = 0; i < N; ++i) {
                acc[i]          = V::fma(V::mul(V::fset1(row.d[i]), d), V::to_float(sums[i]), acc[i]);
                const __m128i s = _mm_load_si128(reinterpret_cast<const __m128i *>(row.sums32[i]));
                for (int k = 0; k < R; ++k) {
                    const __m128i product = _mm_madd_epi16(min[k], s);
                    const __m128  dmin    = _mm_set1_ps(-row.d[i] * half_to_float(block(k).dmin));
                    if constexpr (std::is_same_v<T, Q4_K>) {
                        mins[i][k] = _mm_fmadd_ps(dmin, _mm_cvtepi32_ps(product), mins[i][k]);
                    } else {
                        const __m128i two = _mm_add_epi32(product, _mm_srli_si128(product, 8));
                        const __m128i one = _mm_add_epi32(two, _mm_srli_si128(two, 4));
                        mins[i][k]        = _mm_fmadd_ss(dmin, _mm_cvtepi32_ps(one), mins[i][k]);
                    }
                }
            }
        }
        for (int i = 0; i < N; ++i) {
            float sums[R];
            V::sums(&acc[i], 1, sums);
            for (int k = 0; k < R; ++k) {
                __m128 m = mins[i][k];
                if constexpr (std::is_same_v<T, Q4_K>) {
                    m = _mm_add_ps(m, _mm_movehl_ps(m, m));
                    m = _mm_add_ss(m, _mm_movehdup_ps(m));
                }
                p.out[size_t(i) * p.out_stride + size_t(r) + k] = sums[k] + _mm_cvtss_f32(m);
            }
        }
    }
}

struct Q6_K {
    using Block = block_q6_K;
};

template <class V, int N> void multiply_q6_k(const specee_product & p) {
    using Int                         = typename V::Int;
    constexpr int            R        = V::rows;
    const int64_t            n_blocks = p.n_in / QK_K;
    const Rows256<N> * const rows     = pack_256<N>(p);
    for (int64_t at = 0; at < p.n_out; at += R) {
        const int64_t     r = at + R <= p.n_out ? at : p.n_out - R;
        const char *      w = static_cast<const char *>(p.weights) + size_t(r) * p.weights_stride;
        typename V::Float acc[N];
        for (int i = 0; i < N; ++i) {
            acc[i] = V::fzero();
        }
        const char * ahead = w;
        for (int64_t b = 0; b < n_blocks; ++b, w += sizeof(block_q6_K), ahead += R * sizeof(block_q6_K)) {
            prefetch(ahead, R * sizeof(block_q6_K));
            const Rows256<N> & row    = rows[b];
            const Int          scales = V::weights(w, p.weights_stride, [](const char * x) {
                const auto * s = reinterpret_cast<const block_q6_K *>(x)->scales;
                return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(s)));
            });
            Int                sums[N]; // weights are stored + 32
            for (int i = 0; i < N; ++i) {
                sums[i] = V::sub(V::zero(), V::template shift_left32<5>(V::madd(V::broadcast(row.sums[i]), scales)));
            }
            for (int half = 0; half < 2; ++half) {
                const auto part     = [&](auto member) { return V::weights(w, p.weights_stride, member); };
                const Int  low0     = part([half](const char * x) {
                    return load_bytes(reinterpret_cast<const block_q6_K *>(x)->ql + 64 * half);
                });
                const Int  low1     = part([half](const char * x) {
                    return load_bytes(reinterpret_cast<const block_q6_K *>(x)->ql + 64 * half + 32);
                });
                const Int  high     = part([half](const char * x) {
                    return load_bytes(reinterpret_cast<const block_q6_K *>(x)->qh + 32 * half);
                });
                const Int  two_bits = V::set1(0x30);
                const Int  q[4]     = {
                    V::or_(V::low_nibbles(low0), V::and_(V::template shift_left<4>(high), two_bits)),
                    V::or_(V::low_nibbles(low1), V::and_(V::template shift_left<2>(high), two_bits)),
                    V::or_(V::high_nibbles(low0), V::and_(high, two_bits)),
                    V::or_(V::high_nibbles(low1), V::and_(V::template shift_right<2>(high), two_bits)),
                };
                for (int k = 0; k < 4; ++k) {
                    const Int scale = V::scale_pair(scales, 4 * half + k);
                    for (int i = 0; i < N; ++i) {
                        const Int x = V::broadcast(row.x[i] + 128 * half + 32 * k);
                        sums[i]     = V::scaled(sums[i], V::dot(V::zero(), q[k], x), scale);
                    }
                }
            }
            const auto d = V::per_row(w, p.weights_stride, scale_of<Q6_K>);
            for (int i = 0; i < N; ++i) {
                acc[i] = V::fma(V::mul(V::fset1(row.d[i]), d), V::to_float(sums[i]), acc[i]);
            }
        }
        for (int i = 0; i < N; ++i) {
            V::sums(&acc[i], 1, p.out + size_t(i) * p.out_stride + size_t(r));
        }
    }
}

} // namespace
} // namespace specee::small_batch
