// The kernels, for any of the vector widths of simd_x86.h. N: rows of activations; all of them pass a weight at once.
//
// What ggml's one-row kernels add as integers is exact and may be added in any order; what they add as floats is added
// here lane by lane in their order. Included once for each instruction set (x86_*.cpp).
#pragma once

#define GGML_COMMON_DECL_C
#include "ggml-common.h"
#include "ggml.h"
#include "simd_x86.h"
#include "small_batch.h"
#include "variants.h"

#include <type_traits>

namespace specee::small_batch {
namespace {

constexpr int prefetch_ahead = 8192; // bytes

inline void prefetch(const char * from, int bytes) {
    for (int at = 0; at < bytes; at += 64) {
        _mm_prefetch(from + prefetch_ahead + at, _MM_HINT_T0);
    }
}

const char * row_of(const specee_product & p, int i) {
    return static_cast<const char *>(p.rows) + size_t(i) * p.rows_stride;
}

// ---- types with a scale for each 32 weights ------------------------------------------------------------------------

// A weight is d * (stored - bias), or d * stored + m.
struct Q4_0 {
    using Block                   = block_q4_0;
    using Row                     = block_q8_0;
    static constexpr int  bias    = 8;
    static constexpr bool has_min = false, is_signed = false;
    static __m256i        load(const char * w) { return load_nibbles(reinterpret_cast<const Block *>(w)->qs); }
};

struct Q5_0 {
    using Block                   = block_q5_0;
    using Row                     = block_q8_0;
    static constexpr int  bias    = 16;
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
    static constexpr bool has_min = true, is_signed = false;
    static __m256i        load(const char * w) { return load_nibbles(reinterpret_cast<const Block *>(w)->qs); }
};

template <bool vnni> struct Q8_0 {
    using Block                   = block_q8_0;
    using Row                     = block_q8_0;
    static constexpr int  bias    = vnni ? 128 : 0;
    static constexpr bool has_min = false, is_signed = !vnni;
    static __m256i        load(const char * w) {
        const __m256i x = load_bytes(reinterpret_cast<const Block *>(w)->qs);
        return vnni ? _mm256_xor_si256(x, _mm256_set1_epi8(-128)) : x;
    }
};

template <class T> float scale_of(const char * w) {
    return half_to_float(reinterpret_cast<const typename T::Block *>(w)->d);
}

template <int N> struct alignas(32) Rows32 {
    int8_t  x[N][32];
    int32_t correction[N][8]; // -bias * (sum of four numbers)
    float   d[N];
    float   s[N]; // d * (sum of the 32 numbers)
};

template <class T, int N> const Rows32<N> * pack_32(const specee_product & p) {
    const int64_t n_blocks = p.n_in / 32;
    auto *        packed   = static_cast<Rows32<N> *>(scratch(size_t(n_blocks) * sizeof(Rows32<N>)));
    for (int i = 0; i < N; ++i) {
        const auto * row = reinterpret_cast<const typename T::Row *>(row_of(p, i));
        for (int64_t b = 0; b < n_blocks; ++b) {
            Rows32<N> &   to = packed[b];
            const __m256i x  = load_bytes(row[b].qs);
            _mm256_store_si256(reinterpret_cast<__m256i *>(to.x[i]), x);
            to.d[i] = half_to_float(row[b].d);
            if constexpr (T::has_min) {
                to.s[i] = half_to_float(row[b].s);
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
    constexpr int           G        = V::rows; // vectors of weight rows at a time
    constexpr int           R        = G * V::rows;
    const int64_t           n_blocks = p.n_in / 32;
    const Rows32<N> * const rows     = pack_32<T, N>(p);
    for (int64_t at = 0; at < p.n_out; at += R) {
        const int64_t     r = at + R <= p.n_out ? at : p.n_out - R; // the last ones may be done twice
        const char *      w = static_cast<const char *>(p.weights) + size_t(r) * p.weights_stride;
        typename V::Float acc[N][G];
        __m128            mins[N];
        for (int i = 0; i < N; ++i) {
            mins[i] = _mm_setzero_ps();
            for (int g = 0; g < G; ++g) {
                acc[i][g] = V::fzero();
            }
        }
        const char * ahead = w;
        for (int64_t b = 0; b < n_blocks; ++b, w += sizeof(typename T::Block), ahead += R * sizeof(typename T::Block)) {
            prefetch(ahead, R * sizeof(typename T::Block));
            typename V::Int   q[G];
            typename V::Float d[G];
            __m128            m;
            for (int g = 0; g < G; ++g) {
                q[g] = V::weights(w + size_t(g * V::rows) * p.weights_stride, p.weights_stride, T::load);
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
            const Rows32<N> & row = rows[b];
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
                if constexpr (T::has_min) {
                    mins[i] = _mm_fmadd_ps(m, _mm_set1_ps(row.s[i]), mins[i]);
                }
            }
        }
        for (int i = 0; i < N; ++i) {
            float sums[R], min[4];
            V::sums(acc[i], G, sums);
            _mm_storeu_ps(min, mins[i]);
            for (int k = 0; k < R; ++k) {
                p.out[size_t(i) * p.out_stride + size_t(r) + k] = T::has_min ? sums[k] + min[k] : sums[k];
            }
        }
    }
}

// ---- types with a scale for each 256 weights -----------------------------------------------------------------------

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

// ---- ggml's repacked groups of eight rows: bytes 8j to 8j + 7 of row r stand at 64j + 8r ----------------------------

struct GroupQ4_K { // block_q4_Kx8
    ggml_half d[8];
    ggml_half dmin[8];
    uint8_t   scales[96];
    uint8_t   qs[1024];
};

struct GroupQ4_0 { // block_q4_0x8; its nibbles are signed
    ggml_half d[8];
    uint8_t   qs[128];
};

inline __m256 eight_halves(const ggml_half * h) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(h)));
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

template <class V, int N> void multiply_group_q4_0(const specee_product & p) {
    using Int                        = typename V::Int;
    constexpr int           P        = V::parts;
    const int64_t           n_blocks = p.n_in / 32;
    const Rows32<N> * const rows     = pack_32<Q4_0, N>(p);
    const auto *            group    = static_cast<const GroupQ4_0 *>(p.weights);
    const Int               eight    = V::set1(8);
    for (int64_t r = 0; r < p.n_out; r += 8) {
        __m256 acc[N];
        for (int i = 0; i < N; ++i) {
            acc[i] = _mm256_setzero_ps();
        }
        for (int64_t b = 0; b < n_blocks; ++b, ++group) {
            prefetch(reinterpret_cast<const char *>(group), sizeof(GroupQ4_0));
            const Rows32<N> & row = rows[b];
            Int               q[4][P]; // stored ^ 8 = weight + 8
            for (int part = 0; part < P; ++part) {
                for (int j = 0; j < 2; ++j) {
                    const Int raw  = V::bytes(group->qs + 64 * j + 32 * part);
                    q[j][part]     = V::xor_(V::low_nibbles(raw), eight);
                    q[2 + j][part] = V::xor_(V::high_nibbles(raw), eight);
                }
            }
            const __m256 d = eight_halves(group->d);
            for (int i = 0; i < N; ++i) {
                const __m256i fours = load_bytes(row.correction[i]);
                const __m128i half  = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
                const __m128i quarter    = _mm_add_epi32(half, _mm_srli_si128(half, 8));
                const __m128i correction = _mm_add_epi32(quarter, _mm_srli_si128(quarter, 4));
                Int           dots[P];
                for (int part = 0; part < P; ++part) {
                    auto dot = V::zero();
                    for (int j = 0; j < 4; ++j) {
                        dot = V::dot(dot, q[j][part], V::broadcast8(row.x[i] + 8 * j));
                    }
                    dots[part] = V::sum(dot);
                }
                const __m256i sum = _mm256_add_epi32(V::pair_sums(dots), _mm256_broadcastd_epi32(correction));
                acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(d, _mm256_set1_ps(row.d[i])), acc[i]);
            }
        }
        for (int i = 0; i < N; ++i) {
            _mm256_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r), acc[i]);
        }
    }
}

// ---- choice --------------------------------------------------------------------------------------------------------

template <class V, int N> Kernel kernel_for(int type, specee_layout layout) {
    if (layout == SPECEE_REPACKED_8) {
        return type == GGML_TYPE_Q4_K   ? multiply_group_q4_k<V, N>
               : type == GGML_TYPE_Q4_0 ? multiply_group_q4_0<V, N>
                                        : nullptr;
    }
    switch (type) {
        case GGML_TYPE_Q4_0: return multiply_32<V, Q4_0, N>;
        case GGML_TYPE_Q4_1: return multiply_32<V, Q4_1, N>;
        case GGML_TYPE_Q5_0: return multiply_32<V, Q5_0, N>;
        case GGML_TYPE_Q8_0: return multiply_32<V, Q8_0<V::vnni>, N>;
        case GGML_TYPE_Q4_K: return multiply_k<V, Q4_K, N>;
        case GGML_TYPE_Q5_K: return multiply_k<V, Q5_K, N>;
        case GGML_TYPE_Q6_K: return multiply_q6_k<V, N>;
        default: return nullptr;
    }
}

template <class V> Kernel find(int type, specee_layout layout, int64_t n_rows) {
    switch (n_rows) {
        case 1: return kernel_for<V, 1>(type, layout);
        case 2: return kernel_for<V, 2>(type, layout);
        case 3: return kernel_for<V, 3>(type, layout);
        case 4: return kernel_for<V, 4>(type, layout);
        case 5: return kernel_for<V, 5>(type, layout);
        case 6: return kernel_for<V, 6>(type, layout);
        case 7: return kernel_for<V, 7>(type, layout);
        case 8: return kernel_for<V, 8>(type, layout);
        default: return nullptr;
    }
}

} // namespace
} // namespace specee::small_batch
