// Half tiles of the types with a scale for each 32 weights whose lanes ggml adds as floats: Q4_1, Q5_0, Q5_1, Q8_0.
#pragma once

#include "x86_half_tiles.h"

#include <type_traits>

namespace specee::small_batch {
namespace {

// T: activations, what a kernel reads of them; weights(half) of a lane; dot(), their products with four activations.

// Unsigned weights of 4 and 5 bits.
template <class V> struct HalfUnsigned {
    using Weights                  = __m256i;
    using Activations              = int8_t;
    static constexpr bool x_raised = false;
    static __m256i        dot(__m256i w, const void * x) { return V::dot_of_four(V::zero(), w, four_for_half(x)); }
};
// Signed weights meet unsigned activations, 128 too large: `start` makes up for that.
template <class V> struct HalfSigned {
    struct Weights {
        __m256i w, start;
    };
    using Activations              = int8_t;
    static constexpr bool x_raised = true;
    static Weights started(__m256i w) { return { w, V::negative(V::dot(V::zero(), _mm256_set1_epi8(-128), w)) }; }
    static __m256i dot(Weights w, const void * x) { return V::dot_of_four(w.start, four_for_half(x), w.w); }
};
// Where such products do not fit into the 16 bits in which AVX2 adds two of them: numbers of 16 bits, 0 and 2 of a
// lane, then 1 and 3.
struct HalfWide {
    struct Weights {
        __m256i even, odd;
    };
    using Activations              = int16_t;
    static constexpr bool x_raised = false;
    static Weights        started(__m256i w) {
        return { _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8) };
    }
    static __m256i dot(Weights w, const int16_t * x) {
        return _mm256_add_epi32(_mm256_madd_epi16(w.even, four_for_half(x)),
                                _mm256_madd_epi16(w.odd, four_for_half(x + 2)));
    }
};

template <class V> struct HalfQ4_1 : HalfUnsigned<V> {
    using Block                                = block_q4_1;
    using RowBlock                             = block_q8_1;
    static constexpr bool              has_min = true;
    static constexpr int               bytes = 16 * sizeof(Block), d_at = 256, m_at = 288;
    template <int lane> static __m256i weights(const char * half) {
        return half_nibbles<lane / 4>(half + 64 * (lane % 4));
    }
};
template <int lane> inline __m256i half_five_bits(const char * half) {
    constexpr int v    = lane % 4;
    const __m256i bits = half_at(half + 256), sixteen = _mm256_set1_epi8(16); // bit v of a byte: lane v
    return or_masked(half_nibbles<lane / 4>(half + 64 * v),
                     lane < 4 ? _mm256_slli_epi16(bits, 4 - v) : _mm256_srli_epi16(bits, v), sixteen);
}
template <class V> struct HalfQ5_0 : HalfSigned<V> {
    using Block                             = block_q5_0;
    using RowBlock                          = block_q8_0;
    static constexpr bool           has_min = false;
    static constexpr int            bytes = 16 * sizeof(Block), d_at = 320, m_at = 0;
    template <int lane> static auto weights(const char * half) {
        return HalfSigned<V>::started(_mm256_sub_epi8(half_five_bits<lane>(half), _mm256_set1_epi8(16)));
    }
};
template <class V> struct HalfQ5_1 : HalfUnsigned<V> {
    using Block                                = block_q5_1;
    using RowBlock                             = block_q8_1;
    static constexpr bool              has_min = true;
    static constexpr int               bytes = 16 * sizeof(Block), d_at = 320, m_at = 352;
    template <int lane> static __m256i weights(const char * half) { return half_five_bits<lane>(half); }
};
template <class V> struct HalfQ8_0 : std::conditional_t<V::vnni, HalfSigned<V>, HalfWide> { // stored + 128
    using Block                             = block_q8_0;
    using RowBlock                          = block_q8_0;
    static constexpr bool           has_min = false;
    static constexpr int            bytes = 16 * sizeof(Block), d_at = 512, m_at = 0;
    template <int lane> static auto weights(const char * half) {
        const __m256i w = half_at(half + 128 * (lane % 4) + 64 * (lane / 4));
        return HalfQ8_0::started(_mm256_xor_si256(w, _mm256_set1_epi8(-128)));
    }
};

template <class T, int N> struct HalfRow32 {
    typename T::Activations x[N][32];
    float                   d[N], s[T::has_min ? N : 1];
};

template <class V, class T, int N> void pack_half_columns_32(const specee_product & p, void * to) {
    auto * const packed = static_cast<HalfRow32<T, N> *>(to);
    for (int i = 0; i < N; ++i) {
        const auto * row = reinterpret_cast<const typename T::RowBlock *>(row_of(p, i));
        for (int64_t b = 0; b < p.n_in / 32; ++b) {
            HalfRow32<T, N> & out = packed[b];
            const __m256i     x   = load_bytes(row[b].qs);
            if constexpr (std::is_same_v<typename T::Activations, int8_t>) {
                const __m256i raised = _mm256_xor_si256(x, _mm256_set1_epi8(T::x_raised ? -128 : 0));
                _mm256_storeu_si256(reinterpret_cast<__m256i *>(out.x[i]), raised);
            } else {
                const __m256i order =
                    _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
                const __m256i y     = _mm256_shuffle_epi8(x, order);
                const auto    store = [&](int at, __m128i sixteen) {
                    _mm256_storeu_si256(reinterpret_cast<__m256i *>(out.x[i] + at), _mm256_cvtepi8_epi16(sixteen));
                };
                store(0, _mm256_castsi256_si128(y));
                store(16, _mm256_extracti128_si256(y, 1));
            }
            out.d[i] = half_to_float(row[b].d);
            if constexpr (T::has_min) {
                out.s[i] = half_to_float(row[b].s);
            }
        }
    }
}

template <int... i> using Ints = std::integer_sequence<int, i...>;

// Scales of some blocks of a tile, for each row: they are met by several passes, and stay in the first cache.
constexpr int64_t chunk_blocks = 12;
template <int N> struct Scales {
    __m256 at[chunk_blocks][N][2];
};

// One pass over n blocks of a row of tiles: rows from..from + R, lanes L, halves H. scale_of(b, tile, i, half). Adds to
// sums[half][lane][row], and fetches n_fetched bytes of each tile ahead.
template <class V, class T, int N, int from, int R, int n_fetched = 64, int stride = T::bytes, class Scale, int... L,
          int... H>
inline void half_pass(const char * tile, const HalfRow32<T, N> * rows, int64_t n, __m256 (*sums)[n_lanes][N],
                      const char * ahead, Scale scale_of, Ints<L...>, Ints<H...>) {
    constexpr int n_l = sizeof...(L), n_h = sizeof...(H);
    constexpr int lanes[] = { L... }, halves[] = { H... };
    __m256        acc[n_h][n_l][R];
    const auto    all = [](auto f) {
        each<n_l>([&](auto l) { each<R>([&](auto i) { each<n_h>([&](auto h) { f(h, l, i); }); }); });
    };
    all([&](auto h, auto l, auto i) { acc[h][l][i] = sums[halves[h]][lanes[l]][from + i]; });
    for (int64_t b = 0; b < n; ++b, tile += T::bytes, ahead += stride) {
        const HalfRow32<T, N> & row = rows[b];
        for (int at = 0; at < n_fetched; at += 64) {
            _mm_prefetch(ahead + at, _MM_HINT_T0);
        }
        typename T::Weights w[n_h][n_l];
        each<n_h>([&](auto h) {
            each<n_l>([&](auto l) { w[h][l] = T::template weights<lanes[l]>(tile + 32 * halves[h]); });
        });
        all([&](auto h, auto l, auto i) {
            const __m256 dot = _mm256_cvtepi32_ps(T::dot(w[h][l], row.x[from + i] + 4 * lanes[l]));
            acc[h][l][i]     = _mm256_fmadd_ps(scale_of(b, tile, from + i, halves[h]), dot, acc[h][l][i]);
        });
    }
    all([&](auto h, auto l, auto i) { sums[halves[h]][lanes[l]][from + i] = acc[h][l][i]; });
}

// A row of tiles, up to two rows: all lanes of one, or four of two.
template <class V, class T, int N>
inline void few_rows_32(const char * tile, const HalfRow32<T, N> * rows, int64_t n, __m256 (*sums)[n_lanes][N],
                        __m256 (*mins)[N], const char * ahead) {
    const auto scale_of = [rows](int64_t b, const char * at, int i, int half) {
        return _mm256_mul_ps(eight_halves_at(at + T::d_at + 16 * half), _mm256_set1_ps(rows[b].d[i]));
    };
    // what is ahead is fetched in the order of its addresses
    constexpr int n_passes = 2 * N, part = T::bytes / n_passes;
    each<2>([&](auto h) {
        if constexpr (N == 1) {
            half_pass<V, T, N, 0, 1, part, part>(tile, rows, n, sums, ahead + part * n * h, scale_of,
                                                 Ints<0, 1, 2, 3, 4, 5, 6, 7>(), Ints<h>());
        } else {
            each<2>([&](auto v) {
                half_pass<V, T, N, 0, 2, part, part>(tile, rows, n, sums, ahead + part * n * (2 * h + v), scale_of,
                                                     Ints<2 * v, 2 * v + 1, 2 * v + 4, 2 * v + 5>(), Ints<h>());
            });
        }
    });
    if constexpr (T::has_min) {
        for (int64_t b = 0; b < n; ++b, tile += T::bytes) {
            each<2>([&](auto h) {
                const __m256 m = eight_halves_at(tile + T::m_at + 16 * h);
                each<N>([&](auto i) { mins[h][i] = _mm256_fmadd_ps(m, _mm256_set1_ps(rows[b].s[i]), mins[h][i]); });
            });
        }
    }
}

// More rows, a chunk of blocks: both halves of one lane for four to six of them, which fits into 16 registers.
template <class V, class T, int N, int from = 0, class Scale>
inline void passes_of_lanes(const char * tile, const HalfRow32<T, N> * rows, int64_t n, __m256 (*sums)[n_lanes][N],
                            const char * ahead, Scale scale_of) {
    constexpr int left = N - from, R = left > 6 ? 4 : left;
    if constexpr (R > 3) {
        each<8>([&](auto k) {
            half_pass<V, T, N, from, R>(tile, rows, n, sums, ahead + 64 * k, scale_of, Ints<k>(), Ints<0, 1>());
        });
    } else {
        each<4>([&](auto k) {
            half_pass<V, T, N, from, R>(tile, rows, n, sums, ahead + 64 * k, scale_of, Ints<k, k + 4>(), Ints<0, 1>());
        });
    }
    if constexpr (left > R) {
        passes_of_lanes<V, T, N, from + R>(tile, rows, n, sums, ahead, scale_of);
    }
}

template <class V, class T, int N>
inline void chunk_32(const char * tile, const HalfRow32<T, N> * rows, int64_t n, __m256 (*sums)[n_lanes][N],
                     __m256 (*mins)[N], const char * ahead) {
    Scales<N>    scales;
    const char * at = tile;
    for (int64_t b = 0; b < n; ++b, at += T::bytes) {
        for (int k = N > 3 ? 512 : 256; k < T::bytes; k += 64) { // what the passes do not fetch
            _mm_prefetch(ahead + b * T::bytes + k, _MM_HINT_T0);
        }
        each<2>([&](auto h) {
            const __m256 d = eight_halves_at(at + T::d_at + 16 * h);
            each<N>([&](auto i) { scales.at[b][i][h] = _mm256_mul_ps(d, _mm256_set1_ps(rows[b].d[i])); });
            if constexpr (T::has_min) {
                const __m256 m = eight_halves_at(at + T::m_at + 16 * h);
                each<N>([&](auto i) { mins[h][i] = _mm256_fmadd_ps(m, _mm256_set1_ps(rows[b].s[i]), mins[h][i]); });
            }
        });
    }
    passes_of_lanes<V, T, N>(tile, rows, n, sums, ahead,
                             [&scales](int64_t b, const char *, int i, int half) { return scales.at[b][i][half]; });
}

template <class V, class T, int N> [[gnu::flatten]] void multiply_half_columns_32(const specee_product & p) {
    const int64_t n_blocks = p.n_in / 32;
    const auto *  rows     = static_cast<const HalfRow32<T, N> *>(p.rows);
    const char *  tile     = static_cast<const char *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += tile_rows) {
        __m256 sums[2][n_lanes][N] = {}, mins[2][N] = {};
        if constexpr (N < 3) {
            few_rows_32<V, T, N>(tile, rows, n_blocks, sums, mins, tile + columns_ahead);
            tile += n_blocks * T::bytes;
        } else {
            const int64_t n_chunks = (n_blocks + chunk_blocks - 1) / chunk_blocks;
            for (int64_t c = 0; c < n_chunks; ++c) {
                const int64_t first = n_blocks * c / n_chunks, n = n_blocks * (c + 1) / n_chunks - first;
                chunk_32<V, T, N>(tile, rows + first, n, sums, mins, tile + columns_ahead);
                tile += n * T::bytes;
            }
        }
        each<2>([&](auto h) {
            each<N>([&](auto i) { // as hsum_float_8: ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))
                __m256 pair[4];
                each<4>([&](auto k) { pair[k] = _mm256_add_ps(sums[h][k][i], sums[h][k + 4][i]); });
                __m256 sum = _mm256_add_ps(_mm256_add_ps(pair[0], pair[2]), _mm256_add_ps(pair[1], pair[3]));
                sum        = T::has_min ? _mm256_add_ps(sum, mins[h][i]) : sum;
                _mm256_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r + half_rows * h), sum);
            });
        });
    }
}

} // namespace
} // namespace specee::small_batch
