// Columns of the types with a scale for each 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.
#pragma once

#include "x86_amx_layout.h"

namespace specee::small_batch {
namespace {

struct Q4_1Columns {
    using Block                   = block_q4_1;
    using RowBlock                = block_q8_1;
    static constexpr bool has_min = true;
    static constexpr int  bytes = 16 * sizeof(Block), d_at = 256, m_at = 288, offset = 0;
    static void           load(const char * tile, int v, __m512i * w) { load_nibbles(tile + 64 * v, &w[0], &w[1]); }
};
inline void load_five_bits(const char * tile, int v, __m512i * w) {
    load_nibbles(tile + 64 * v, &w[0], &w[1]);
    const __m512i bits = vector_at(tile + 256), sixteen = _mm512_set1_epi8(16);
    w[0] = or_masked(w[0], _mm512_slli_epi16(bits, unsigned(4 - v)), sixteen); // bit v of a byte: lane v
    w[1] = or_masked(w[1], _mm512_srli_epi16(bits, unsigned(v)), sixteen);
}
struct Q5_0Columns {
    using Block                   = block_q5_0;
    using RowBlock                = block_q8_0;
    static constexpr bool has_min = false;
    static constexpr int  bytes = 16 * sizeof(Block), d_at = 320, offset = 16;
    static void           load(const char * tile, int v, __m512i * w) { load_five_bits(tile, v, w); }
};
struct Q5_1Columns {
    using Block                   = block_q5_1;
    using RowBlock                = block_q8_1;
    static constexpr bool has_min = true;
    static constexpr int  bytes = 16 * sizeof(Block), d_at = 320, m_at = 352, offset = 0;
    static void           load(const char * tile, int v, __m512i * w) { load_five_bits(tile, v, w); }
};
struct Q8_0Columns { // weights are stored + 128
    using Block                   = block_q8_0;
    using RowBlock                = block_q8_0;
    static constexpr bool has_min = false;
    static constexpr int  bytes = 16 * sizeof(Block), d_at = 512, offset = 128;
    static void           load(const char * tile, int v, __m512i * w) {
        w[0] = vector_at(tile + 128 * v);
        w[1] = vector_at(tile + 128 * v + 64);
    }
};

// One pass over a row of tiles: rows from..from + R, lanes v and v + 4 for each of V. Adds to sums[row] what these
// lanes come to, and fetches an n_passes-th of what is `ahead`.
template <class T, int N, int from, int R, int n_passes, int... V>
inline void pass_32(const char * tile, const Row32<T, N> * rows, int64_t n_blocks, __m512 * sums, __m512 * mins,
                    std::integer_sequence<int, V...>, const char * ahead) {
    constexpr int  n_pairs   = sizeof...(V);
    constexpr int  vectors[] = { V... };
    constexpr bool with_mins = T::has_min && vectors[0] == 0;
    __m512         acc[R][n_pairs][2];
    each<R>([&](auto i) { each<n_pairs>([&](auto k) { acc[i][k][0] = acc[i][k][1] = _mm512_setzero_ps(); }); });
    for (int64_t b = 0; b < n_blocks; ++b, tile += T::bytes) {
        const Row32<T, N> & row = rows[b];
        for (int at = 0; at < T::bytes / n_passes; at += 64) {
            _mm_prefetch(ahead + at, _MM_HINT_T0);
        }
        ahead += T::bytes / n_passes;
        const __m512 d = halves_at(tile + T::d_at);
        __m512       scale[R];
        each<R>([&](auto i) { scale[i] = _mm512_mul_ps(d, _mm512_set1_ps(row.d[from + i])); });
        if constexpr (with_mins) {
            const __m512 m = halves_at(tile + T::m_at);
            each<R>(
                [&](auto i) { mins[from + i] = _mm512_fmadd_ps(m, _mm512_set1_ps(row.s[from + i]), mins[from + i]); });
        }
        each<n_pairs>([&](auto k) {
            constexpr int v = vectors[k];
            __m512i       w[2];
            T::load(tile, v, w);
            each<R>([&](auto i) {
                each<2>([&](auto h) {
                    constexpr int lane = v + 4 * h;
                    __m512i       dot  = _mm512_setzero_si512();
                    if constexpr (T::offset != 0) {
                        dot = _mm512_set1_epi32(row.start[from + i][lane]);
                    }
                    dot          = _mm512_dpbusd_epi32(dot, w[h], four_of(row.x[from + i] + 4 * lane));
                    acc[i][k][h] = _mm512_fmadd_ps(scale[i], _mm512_cvtepi32_ps(dot), acc[i][k][h]);
                });
            });
        });
    }
    // as hsum_float_8: ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))
    each<R>([&](auto i) {
        __m512 pairs[n_pairs];
        each<n_pairs>([&](auto k) { pairs[k] = _mm512_add_ps(acc[i][k][0], acc[i][k][1]); });
        if constexpr (n_pairs == 2) {
            const __m512 four = _mm512_add_ps(pairs[0], pairs[1]);
            sums[from + i]    = vectors[0] == 0 ? four : _mm512_add_ps(sums[from + i], four);
        } else {
            sums[from + i] = _mm512_add_ps(_mm512_add_ps(pairs[0], pairs[2]), _mm512_add_ps(pairs[1], pairs[3]));
        }
    });
}

// What fits into registers: three rows with all lanes, or four with half of them at a time. Six rows of Q8_0 take much
// less time as four and two than as three and three, for which compilers spill registers.
template <class T> constexpr bool in_halves(int n_left) {
    return n_left == 4 || n_left > 6 || (n_left == 6 && std::is_same_v<T, Q8_0Columns>);
}
template <class T> constexpr int rows_at_once(int n_left) {
    return in_halves<T>(n_left) ? 4 : n_left < 3 ? n_left : 3;
}
template <class T> constexpr int count_passes(int n_left) {
    return n_left ? 1 + in_halves<T>(n_left) + count_passes<T>(n_left - rows_at_once<T>(n_left)) : 0;
}

template <class T, int N, int from = 0>
inline void passes_32(const char * tile, const Row32<T, N> * rows, int64_t n_blocks, __m512 * sums, __m512 * mins,
                      const char * ahead) {
    constexpr int R = rows_at_once<T>(N - from), n_passes = count_passes<T>(N);
    const int64_t part = T::bytes / n_passes * n_blocks;
    if constexpr (in_halves<T>(N - from)) {
        pass_32<T, N, from, R, n_passes>(tile, rows, n_blocks, sums, mins, std::integer_sequence<int, 0, 2>(), ahead);
        ahead += part;
        pass_32<T, N, from, R, n_passes>(tile, rows, n_blocks, sums, mins, std::integer_sequence<int, 1, 3>(), ahead);
    } else {
        pass_32<T, N, from, R, n_passes>(tile, rows, n_blocks, sums, mins, std::integer_sequence<int, 0, 1, 2, 3>(),
                                         ahead);
    }
    if constexpr (from + R < N) {
        passes_32<T, N, from + R>(tile, rows, n_blocks, sums, mins, ahead + part);
    }
}

template <class T, int N> [[gnu::flatten]] void multiply_columns_32(const specee_product & p) {
    const int64_t n_blocks = p.n_in / 32;
    const auto *  rows     = static_cast<const Row32<T, N> *>(p.rows);
    const char *  tile     = static_cast<const char *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += tile_rows, tile += n_blocks * T::bytes) {
        __m512 sums[N], mins[N];
        each<N>([&](auto i) { mins[i] = _mm512_setzero_ps(); });
        // what is read once is fetched a little earlier; what is read several times, with the row of tiles before it
        passes_32<T, N>(tile, rows, n_blocks, sums, mins,
                        tile + (count_passes<T>(N) == 1 ? columns_ahead : n_blocks * T::bytes));
        each<N>([&](auto i) {
            const __m512 sum = T::has_min ? _mm512_add_ps(sums[i], mins[i]) : sums[i];
            _mm512_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r), sum);
        });
    }
}

// Types that ggml repacks, and whose products of 32 weights it then adds before they become floats, as for AMX.
struct Q4_0Columns {
    using RowBlock                = block_q8_0;
    static constexpr bool has_min = false;
    static constexpr int  bytes = 16 * sizeof(block_q4_0), d_at = 256, offset = 8;
    static __m512         scales(const char * tile) { return halves_at(tile + d_at); }
    static void           load(const char * tile, __m512i * w) {
        each<4>([&](auto v) { load_nibbles(tile + 64 * v, &w[v], &w[v + 4]); });
    }
};
struct IQ4_NLColumns : Q4_0Columns {
    static constexpr int    offset = 128;
    static constexpr Values values = raised(iq4_values, offset);
    static void             load(const char * tile, __m512i * w) {
        Q4_0Columns::load(tile, w);
        each<8>([&](auto k) { w[k] = look_up(values, w[k]); });
    }
};
struct MXFP4Columns : Q4_0Columns {
    static constexpr int    bytes = 16 * sizeof(block_mxfp4), offset = 12;
    static constexpr Values values = raised(fp4_values, offset);
    static __m512           scales(const char * tile) { return exponents_at(tile + d_at); }
    static void             load(const char * tile, __m512i * w) {
        Q4_0Columns::load(tile, w);
        each<8>([&](auto k) { w[k] = look_up(values, w[k]); });
    }
};

template <class T, int N> void multiply_columns_repacked(const specee_product & p) {
    multiply_packed<Tiles32<T>, N>(p, static_cast<const TileRows32<N> *>(p.rows));
}

} // namespace
} // namespace specee::small_batch
