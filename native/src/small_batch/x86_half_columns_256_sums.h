// Half tiles of the types with a scale for each 256 weights where ggml adds products of all of 64 or more as integers:
// in groups of eight repacked rows, and in batches.
#pragma once

#include "x86_half_columns_256.h"

namespace specee::small_batch {
namespace {

constexpr int rows_a_pass(int n) { // at most four, which makes eight sums
    return n <= 4 ? n : (n + 1) / 2;
}

// The weights of a tile as bytes, where a pass would otherwise unpack them again and again.
struct Unpacked {
    __m256i w[2][8][n_lanes];
};

// total[half][row] += scale times the products of 32 weights: those of `pair`, and 32 further if k is 1.
template <class V, class T, int N, int from, int R, int k, class Weights>
inline void add_products(Weights weights, const Block256 * row, int pair, const __m256i (*scale)[2][8],
                         __m256i (*total)[N]) {
    constexpr int n_groups = 32 / T::of_scale, n = n_lanes / n_groups; // lanes with the same scale
    constexpr int fit = 32767 / (2 * 127 * T::most), at_once = V::vnni || fit > n ? n : fit & -fit; // in 16 bits
    each<n_groups>([&](auto j) {
        each<n / at_once>([&](auto part) {
            typename V::Dot dot[2][R];
            each<2>([&](auto h) { each<R>([&](auto i) { dot[h][i] = V::zero(); }); });
            each<at_once>([&](auto l) {
                constexpr int lane = n * j + at_once * part + l;
                each<2>([&](auto h) {
                    const __m256i w    = weights(h, lane);
                    const __m256i size = T::is_signed ? _mm256_sign_epi8(w, w) : w;
                    each<R>([&](auto i) {
                        const __m256i x = four_for_half(row[from + i].qs + 64 * pair + 32 * k + 4 * lane);
                        dot[h][i]       = in_order(V::dot(dot[h][i], size, T::is_signed ? _mm256_sign_epi8(x, w) : x));
                    });
                });
            });
            each<2>([&](auto h) {
                const __m256i s = scale[h][j][2 * pair + k];
                each<R>([&](auto i) { // 32 bits with VNNI, else 16
                    __m256i & to = total[h][from + i];
                    if constexpr (V::vnni) {
                        to = V::scaled_wide(to, dot[h][i], _mm256_srai_epi32(s, 16));
                    } else {
                        to = V::scaled(to, dot[h][i], s);
                    }
                });
            });
        });
    });
}

// `order`: of ggml's additions as floats. In groups of repacked rows once for so many weights, mins apart; in batches
// of rows as in the file once for 256, with the scale of the activations last.
enum class Order { batch_of_rows = 0, once_for_64 = 64, once_for_128 = 128, once_for_256 = 256 };

template <class V, class T, int N, Order order> [[gnu::flatten]] void multiply_half_sums(const specee_product & p) {
    constexpr bool in_place = std::is_same_v<T, HalfQ4_K>, repacked = order != Order::batch_of_rows;
    constexpr int  R = rows_a_pass(N), n_sums = T::of_scale == 16 ? 8 : 4,
                   pairs_an_addition = repacked ? int(order) / 64 : 4;
    const int64_t  n_blocks          = p.n_in / QK_K;
    const auto *   rows              = static_cast<const Block256 *>(p.rows);
    const char *   tile              = static_cast<const char *>(p.weights);
    for (int64_t r = 0; r < p.n_out; r += tile_rows) {
        __m256 acc[2][N] = {}, mins[2][N] = {};
        for (int64_t b = 0; b < n_blocks; ++b, tile += T::bytes) {
            const Block256 * const row = rows + b * N;
            __m256i                scale[2][2][8], for_sums[2][8], total[2][N] = {}, least[2][N] = {};
            Unpacked               unpacked;
            for (int h = 0; h < 2; ++h) {
                T::load_scales(tile, h, scale[h], for_sums[h]);
                if constexpr (!in_place) {
                    for (int lane = 0; lane < n_lanes; ++lane) {
                        each<8>([&](auto k) { unpacked.w[h][k][lane] = T::template weights<k>(tile + 32 * h, lane); });
                    }
                }
            }
            const auto add = [&] { // as floats
                each<2>([&](auto h) {
                    const __m256 d    = eight_halves_at(tile + T::d_at + 16 * h);
                    const __m256 dmin = T::has_min ? eight_halves_at(tile + T::d_at + 32 + 16 * h) : d;
                    each<N>([&](auto i) {
                        const __m256 row_d = _mm256_set1_ps(row[i].d), sum = _mm256_cvtepi32_ps(total[h][i]);
                        if constexpr (repacked) {
                            acc[h][i]  = _mm256_fmadd_ps(sum, _mm256_mul_ps(d, row_d), acc[h][i]);
                            mins[h][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(least[h][i]), _mm256_mul_ps(dmin, row_d),
                                                         mins[h][i]);
                        } else {
                            __m256 of_row = _mm256_mul_ps(sum, d);
                            if constexpr (T::has_min) {
                                of_row = _mm256_fnmadd_ps(dmin, _mm256_cvtepi32_ps(least[h][i]), of_row);
                            }
                            acc[h][i] = _mm256_fmadd_ps(of_row, row_d, acc[h][i]);
                        }
                        total[h][i] = least[h][i] = _mm256_setzero_si256();
                    });
                });
            };
            for (int pair = 0; pair < 4; ++pair) {
                for (int at = 0; at < T::bytes / 4; at += 64) {
                    _mm_prefetch(tile + columns_ahead + T::bytes / 4 * pair + at, _MM_HINT_T0);
                }
                const auto pass = [&](auto from, auto n) {
                    each<2>([&](auto k) {
                        add_products<V, T, N, from, n, k>(
                            [&](auto h, int lane) {
                                if constexpr (in_place) {
                                    return T::template weights<k>(tile + 512 * pair + 32 * h, lane);
                                } else {
                                    return unpacked.w[h][2 * pair + k][lane];
                                }
                            },
                            row, pair, scale, total);
                    });
                };
                pass(std::integral_constant<int, 0>(), std::integral_constant<int, R>());
                if constexpr (R < N) {
                    pass(std::integral_constant<int, R>(), std::integral_constant<int, N - R>());
                }
                if constexpr (!T::is_signed) {
                    each<2>([&](auto h) {
                        each<N>([&](auto i) {
                            __m256i & to = T::has_min ? least[h][i] : total[h][i];
                            for (int k = n_sums / 4 * pair; k < n_sums / 4 * (pair + 1); ++k) {
                                const int16_t * const sums = T::of_scale == 16 ? row[i].bsums : row[i].sums32;
                                to                         = V::scaled(to, for_sums[h][k], two_sums(sums + 2 * k));
                            }
                        });
                    });
                }
                if (pair % pairs_an_addition == pairs_an_addition - 1) {
                    add();
                }
            }
        }
        each<2>([&](auto h) {
            for (int i = 0; i < p.n_rows; ++i) {
                const __m256 sum = repacked ? _mm256_sub_ps(acc[h][i], mins[h][i]) : acc[h][i];
                _mm256_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r) + half_rows * h, sum);
            }
        });
    }
}

} // namespace
} // namespace specee::small_batch
