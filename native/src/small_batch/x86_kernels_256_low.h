// Types with a scale for each 256 weights and few bits, rows as in the file: Q2_K, Q3_K, IQ4_XS.
#pragma once

#include "each.h"
#include "x86_kernels_256.h"

namespace specee::small_batch {
namespace {

// A weight is d * scale * stored - dmin * min, with a scale and a min for each 16.
struct Q2_K {
    using Block = block_q2_K;
    static __m256i scales(const char * w) { // 16 bits each
        const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i *>(of(w).scales));
        return _mm256_cvtepi8_epi16(_mm_and_si128(packed, _mm_set1_epi8(15)));
    }
    static __m256i mins(const char * w) {
        const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i *>(of(w).scales));
        return _mm256_cvtepi8_epi16(_mm_and_si128(_mm_srli_epi16(packed, 4), _mm_set1_epi8(15)));
    }
    static float         min_of(const char * w) { return half_to_float(of(w).dmin); }
    static const Block & of(const char * w) { return *reinterpret_cast<const Block *>(w); }
};

template <class V, int N> void multiply_q2_k(const specee_product & p) {
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
        for (int64_t b = 0; b < n_blocks; ++b, w += sizeof(block_q2_K), ahead += R * sizeof(block_q2_K)) {
            prefetch(ahead, R * sizeof(block_q2_K));
            const Rows256<N> & row    = rows[b];
            const Int          scales = V::weights(w, p.weights_stride, Q2_K::scales);
            const Int          mins   = V::weights(w, p.weights_stride, Q2_K::mins);
            Int                sums[N];
            for (int i = 0; i < N; ++i) {
                sums[i] = V::zero();
            }
            for (int half = 0; half < 2; ++half) {
                const Int raw = V::weights(w, p.weights_stride,
                                           [half](const char * x) { return load_bytes(Q2_K::of(x).qs + 32 * half); });
                each<4>([&](auto k) {
                    const Int q     = V::and_(V::template shift_right<2 * k>(raw), V::set1(3));
                    const Int scale = V::scale_pair(scales, 4 * half + k);
                    for (int i = 0; i < N; ++i) {
                        const Int x = V::broadcast(row.x[i] + 128 * half + 32 * k);
                        sums[i]     = V::scaled(sums[i], V::dot(V::zero(), q, x), scale);
                    }
                });
            }
            const auto d    = V::per_row(w, p.weights_stride, scale_of<Q2_K>);
            const auto dmin = V::per_row(w, p.weights_stride, Q2_K::min_of);
            for (int i = 0; i < N; ++i) {
                const auto least = V::to_float(V::madd(mins, V::broadcast(row.sums[i])));
                acc[i]           = V::fma(V::mul(V::fset1(-row.d[i]), dmin), least, acc[i]);
                acc[i]           = V::fma(V::mul(V::fset1(row.d[i]), d), V::to_float(sums[i]), acc[i]);
            }
        }
        for (int i = 0; i < N; ++i) {
            V::sums(&acc[i], 1, p.out + size_t(i) * p.out_stride + size_t(r));
        }
    }
}

// A weight is d * scale * (stored - offset), with a scale for each 16.
struct Q3_K {
    using Block                 = block_q3_K;
    static constexpr int offset = 4;
    static const Block & of(const char * w) { return *reinterpret_cast<const Block *>(w); }
    static __m256i       scales_of(const char * w) {
        uint32_t u[3];
        std::memcpy(u, of(w).scales, sizeof u);
        const auto six = [&u](uint32_t low, int k) {
            return int((low & 0x0f0f0f0f) | ((u[2] >> (2 * k) & 0x03030303) << 4));
        };
        const __m128i s = _mm_set_epi32(six(u[1] >> 4, 3), six(u[0] >> 4, 2), six(u[1], 1), six(u[0], 0));
        return _mm256_cvtepi8_epi16(_mm_sub_epi8(s, _mm_set1_epi8(32)));
    }

    template <class V> struct Weights {
        typename V::Int scales, bits, lower[2];

        Weights(const char * w, size_t stride) :
            scales(V::weights(w, stride, scales_of)),
            bits(V::weights(w, stride, [](const char * x) { return load_bytes(of(x).hmask); })),
            lower{ V::weights(w, stride, [](const char * x) { return load_bytes(of(x).qs); }),
                   V::weights(w, stride, [](const char * x) { return load_bytes(of(x).qs + 32); }) } {}
        template <int b> typename V::Int at() const { // the b-th 32
            constexpr int up = b < 2 ? 2 - b : 0, down = b < 2 ? 0 : b - 2;
            const auto    third = V::template shift_right<down>(V::template shift_left<up>(bits));
            const auto    low   = V::template shift_right<2 * (b % 4)>(lower[b / 4]);
            return V::or_(V::and_(low, V::set1(3)), V::and_(third, V::set1(4)));
        }
        template <int b>
        typename V::Int add(typename V::Int sum, typename V::Int q, typename V::Int x, typename V::Int start) const {
            return V::scaled(sum, V::dot(start, q, x), V::scale_pair(scales, b));
        }
    };
};

// The same with a scale for each 32. Four products do not fit into 16 bits: without VNNI weights keep their sign.
struct IQ4_XS {
    using Block                 = block_iq4_xs;
    static constexpr int offset = 128;
    static const Block & of(const char * w) { return *reinterpret_cast<const Block *>(w); }

    template <class V> struct Weights {
        const char *    w;
        size_t          stride;
        typename V::Int scales; // 32 bits, or twice 16

        static __m256i scales_of(const char * w) {
            uint32_t low;
            std::memcpy(&low, of(w).scales_l, sizeof low);
            const __m256i four =
                _mm256_srlv_epi32(_mm256_set1_epi32(int(low)), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
            const __m256i two =
                _mm256_srlv_epi32(_mm256_set1_epi32(of(w).scales_h << 4), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
            const __m256i six = _mm256_or_si256(_mm256_and_si256(four, _mm256_set1_epi32(15)),
                                                _mm256_and_si256(two, _mm256_set1_epi32(0x30)));
            const __m256i s   = _mm256_sub_epi32(six, _mm256_set1_epi32(32));
            return V::vnni ? s : _mm256_blend_epi16(s, _mm256_slli_epi32(s, 16), 0xaa);
        }
        Weights(const char * w_, size_t stride_) : w(w_), stride(stride_), scales(V::weights(w, stride, scales_of)) {}
        template <int b> typename V::Int at() const {
            constexpr static Values values = raised(iq4_values, V::vnni ? offset : 0);
            const auto nibbles = V::weights(w, stride, [](const char * x) { return load_nibbles(of(x).qs + 16 * b); });
            return V::look_up(table_of(values), nibbles);
        }
        template <int b>
        typename V::Int add(typename V::Int sum, typename V::Int q, typename V::Int x, typename V::Int start) const {
            if constexpr (V::vnni) {
                return V::scaled_wide(sum, V::dot(start, q, x), V::scale_32(scales, b));
            } else {
                return V::scaled(sum, V::signed_pairs(q, x), V::scale_32(scales, b));
            }
        }
    };
};

template <int N> struct alignas(32) StartedRows256 {
    int8_t  x[N][QK_K];
    __m256i start[N][QK_K / 32]; // of a Dot
    float   d[N];
};

template <class V, int offset, int N> const StartedRows256<N> * pack_started_256(const specee_product & p) {
    const int64_t n_blocks = p.n_in / QK_K;
    auto *        packed   = static_cast<StartedRows256<N> *>(scratch(size_t(n_blocks) * sizeof(StartedRows256<N>)));
    for (int i = 0; i < N; ++i) {
        const auto * row = reinterpret_cast<const block_q8_K *>(row_of(p, i));
        for (int64_t b = 0; b < n_blocks; ++b) {
            StartedRows256<N> & to = packed[b];
            std::memcpy(to.x[i], row[b].qs, QK_K);
            for (int k = 0; k < QK_K / 32; ++k) {
                to.start[i][k] = V::start(load_bytes(row[b].qs + 32 * k), offset);
            }
            to.d[i] = row[b].d;
        }
    }
    return packed;
}

// Q3_K and IQ4_XS.
template <class V, class T, int N> void multiply_started_256(const specee_product & p) {
    constexpr int      R        = V::rows;
    const int64_t      n_blocks = p.n_in / QK_K;
    const auto * const rows     = pack_started_256<V, T::offset, N>(p);
    for (int64_t at = 0; at < p.n_out; at += R) {
        const int64_t     r = at + R <= p.n_out ? at : p.n_out - R;
        const char *      w = static_cast<const char *>(p.weights) + size_t(r) * p.weights_stride;
        typename V::Float acc[N];
        for (int i = 0; i < N; ++i) {
            acc[i] = V::fzero();
        }
        const char * ahead = w;
        for (int64_t b = 0; b < n_blocks; ++b, w += sizeof(typename T::Block), ahead += R * sizeof(typename T::Block)) {
            prefetch(ahead, R * sizeof(typename T::Block));
            const auto &                          row = rows[b];
            const typename T::template Weights<V> weights(w, p.weights_stride);
            typename V::Int                       sums[N];
            for (int i = 0; i < N; ++i) {
                sums[i] = V::zero();
            }
            each<QK_K / 32>([&](auto k) {
                const auto q = weights.template at<k>();
                for (int i = 0; i < N; ++i) {
                    sums[i] = weights.template add<k>(sums[i], q, V::broadcast(row.x[i] + 32 * k),
                                                      V::broadcast(&row.start[i][k]));
                }
            });
            const auto d = V::per_row(w, p.weights_stride, scale_of<T>);
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
