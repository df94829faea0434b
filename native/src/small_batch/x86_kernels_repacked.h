// ggml's repacked groups of eight rows (Q4_0, IQ4_NL, MXFP4, Q4_K): bytes 8j to 8j + 7 of row r stand at 64j + 8r.
#pragma once

#include "x86_half_tiles.h"
#include "x86_kernels_256.h"

namespace specee::small_batch {
namespace {

struct GroupQ4_K { // block_q4_Kx8
    ggml_half d[8];
    ggml_half dmin[8];
    uint8_t   scales[96];
    uint8_t   qs[1024];
};

inline __m256 eight_halves(const ggml_half * h) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(h)));
}

// Types with a scale for each 32 weights. V: Avx2 without VNNI adds products of two and four numbers in 16 bits; where
// they do not fit (is_wide), its weights keep their sign.
struct GroupQ4_0 { // block_q4_0x8; its nibbles are signed
    ggml_half d[8];
    uint8_t   qs[128];

    static constexpr int                      offset  = 8;
    static constexpr bool                     is_wide = false;
    __m256                                    scales() const { return eight_halves(d); }
    template <class V> static typename V::Int weights(typename V::Int nibbles) { // stored ^ 8 = weight + 8
        return V::xor_(nibbles, V::set1(8));
    }
};
struct GroupIQ4_NL { // block_iq4_nlx8
    ggml_half d[8];
    uint8_t   qs[128];

    static constexpr int                      offset  = 128;
    static constexpr bool                     is_wide = true;
    __m256                                    scales() const { return eight_halves(d); }
    template <class V> static typename V::Int weights(typename V::Int nibbles) {
        constexpr static Values values = raised(iq4_values, V::vnni ? offset : 0);
        return V::look_up(table_of(values), nibbles);
    }
};
struct GroupMXFP4 { // block_mxfp4x8
    uint8_t e[8];
    uint8_t qs[128];

    static constexpr int  offset  = 12;
    static constexpr bool is_wide = false;
    __m256                scales() const { return eight_exponents_at(reinterpret_cast<const char *>(e)); }
    template <class V> static typename V::Int weights(typename V::Int nibbles) {
        constexpr static Values values = raised(fp4_values, offset);
        return V::look_up(table_of(values), nibbles);
    }
};

template <int N> struct RowsGroup32 {
    int8_t  x[N][32];
    int32_t correction[N]; // -offset * (sum of the 32 numbers)
    float   d[N];
};

template <int offset, int N> const RowsGroup32<N> * pack_group_32(const specee_product & p) {
    const int64_t n_blocks = p.n_in / 32;
    auto * const  packed   = static_cast<RowsGroup32<N> *>(scratch(size_t(n_blocks) * sizeof(RowsGroup32<N>)));
    for (int i = 0; i < N; ++i) {
        const auto * row = reinterpret_cast<const block_q8_0 *>(row_of(p, i));
        for (int64_t b = 0; b < n_blocks; ++b) {
            std::memcpy(packed[b].x[i], row[b].qs, 32);
            packed[b].correction[i] = 0;
            for (int k = 0; k < 32; ++k) {
                packed[b].correction[i] -= offset * row[b].qs[k];
            }
            packed[b].d[i] = half_to_float(row[b].d);
        }
    }
    return packed;
}

template <class V, int N> void multiply_group_q4_k(const specee_product & p) {
    using Int                         = typename V::Int;
    constexpr int            P        = V::parts;
    const int64_t            n_blocks = p.n_in / QK_K;
    const Rows256<N> * const rows     = pack_256<N>(p);
    const auto *             group    = static_cast<const GroupQ4_K *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += 8) {
        __m256 acc[N], mins[N];
        for (int i = 0; i < N; ++i) {
            acc[i] = mins[i] = _mm256_setzero_ps();
        }
        for (int64_t b = 0; b < n_blocks; ++b, ++group) {
            const Rows256<N> & row = rows[b];
            Int                sums[N][P];
            __m256i            min_sums[N];
            for (int i = 0; i < N; ++i) {
                min_sums[i] = _mm256_setzero_si256();
                for (int part = 0; part < P; ++part) {
                    sums[i][part] = V::zero();
                }
            }
            for (int pair = 0; pair < QK_K / 64; ++pair) {
                prefetch(reinterpret_cast<const char *>(group) + pair * sizeof(GroupQ4_K) / 4, sizeof(GroupQ4_K) / 4);
                const __m128i even = scales_and_mins(group->scales + 24 * pair);
                const __m128i odd  = scales_and_mins(group->scales + 24 * pair + 12);
                const __m256i min  = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(even, odd));
                for (int i = 0; i < N; ++i) {
                    const __m256i two = _mm256_set1_epi32(reinterpret_cast<const int32_t *>(row.sums32[i])[pair]);
                    min_sums[i]       = _mm256_add_epi32(min_sums[i], _mm256_madd_epi16(min, two));
                }
                for (int part = 0; part < P; ++part) {
                    Int raw[4];
                    for (int j = 0; j < 4; ++j) {
                        raw[j] = V::bytes(group->qs + 256 * pair + 64 * j + 32 * part);
                    }
                    const auto add = [&](auto nibbles, __m128i scales, int first) {
                        Int q[4];
                        for (int j = 0; j < 4; ++j) {
                            q[j] = nibbles(raw[j]);
                        }
                        const Int scale = V::scale(V::columns(_mm_cvtepu8_epi16(scales), part));
                        for (int i = 0; i < N; ++i) {
                            auto dot = V::zero();
                            for (int j = 0; j < 4; ++j) {
                                dot = V::dot(dot, q[j], V::broadcast8(row.x[i] + first + 8 * j));
                            }
                            sums[i][part] = V::scaled(sums[i][part], dot, scale);
                        }
                    };
                    add([](Int x) { return V::low_nibbles(x); }, even, 64 * pair);
                    add([](Int x) { return V::high_nibbles(x); }, odd, 64 * pair + 32);
                }
            }
            const __m256 d = eight_halves(group->d), dmin = eight_halves(group->dmin);
            for (int i = 0; i < N; ++i) {
                const __m256 scale = _mm256_set1_ps(row.d[i]);
                const __m256 dots  = _mm256_cvtepi32_ps(V::pair_sums(sums[i]));
                acc[i]             = _mm256_fmadd_ps(dots, _mm256_mul_ps(d, scale), acc[i]);
                mins[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(min_sums[i]), _mm256_mul_ps(dmin, scale), mins[i]);
            }
        }
        for (int i = 0; i < N; ++i) {
            _mm256_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r), _mm256_sub_ps(acc[i], mins[i]));
        }
    }
}

template <class V, class T, int N> void multiply_group_32(const specee_product & p) {
    using Int                             = typename V::Int;
    constexpr int                P        = V::parts;
    constexpr bool               is_wide  = T::is_wide && !V::vnni;
    const int64_t                n_blocks = p.n_in / 32;
    const RowsGroup32<N> * const rows     = pack_group_32<is_wide ? 0 : T::offset, N>(p);
    const auto *                 group    = static_cast<const T *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += 8) {
        __m256 acc[N];
        for (int i = 0; i < N; ++i) {
            acc[i] = _mm256_setzero_ps();
        }
        for (int64_t b = 0; b < n_blocks; ++b, ++group) {
            prefetch(reinterpret_cast<const char *>(group), sizeof(T));
            const RowsGroup32<N> & row = rows[b];
            Int                    q[4][P];
            for (int part = 0; part < P; ++part) {
                for (int j = 0; j < 2; ++j) {
                    const Int raw  = V::bytes(group->qs + 64 * j + 32 * part);
                    q[j][part]     = T::template weights<V>(V::low_nibbles(raw));
                    q[2 + j][part] = T::template weights<V>(V::high_nibbles(raw));
                }
            }
            const __m256 d = group->scales();
            for (int i = 0; i < N; ++i) {
                Int dots[P];
                for (int part = 0; part < P; ++part) {
                    auto dot = V::zero();
                    for (int j = 0; j < 4; ++j) {
                        const Int x = V::broadcast8(row.x[i] + 8 * j);
                        if constexpr (is_wide) {
                            dot = V::add(dot, V::signed_dot(q[j][part], x));
                        } else {
                            dot = V::dot(dot, q[j][part], x);
                        }
                    }
                    dots[part] = is_wide ? dot : V::sum(dot);
                }
                const __m256i sum = _mm256_add_epi32(V::pair_sums(dots), _mm256_set1_epi32(row.correction[i]));
                acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(d, _mm256_set1_ps(row.d[i])), acc[i]);
            }
        }
        for (int i = 0; i < N; ++i) {
            _mm256_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r), acc[i]);
        }
    }
}

} // namespace
} // namespace specee::small_batch
