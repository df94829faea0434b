// Products with F16 weights: one row's attention over the K/V cache, among others. Compiled as ggml is, whose order of
// additions depends on the instructions it is compiled for.
#include "each.h"
#include "small_batch.h"
#include "variants.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__) && !defined(__AVX512FP16__)

#include <immintrin.h>

#include <cstring>

namespace specee::small_batch {
namespace {

constexpr int lanes = 16; // GGML_F16_EPR
constexpr int step  = 64; // GGML_F16_STEP: four accumulators
constexpr int n_acc = step / lanes;

// As _mm512_reduce_add_ps adds, for four vectors at once.
inline __m128 sums_of_four(const __m512 * x) {
    const __m512 a = _mm512_add_ps(_mm512_shuffle_f32x4(x[0], x[1], 0xee), _mm512_shuffle_f32x4(x[0], x[1], 0x44));
    const __m512 b = _mm512_add_ps(_mm512_shuffle_f32x4(x[2], x[3], 0xee), _mm512_shuffle_f32x4(x[2], x[3], 0x44));
    __m512       s = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0xdd), _mm512_shuffle_f32x4(a, b, 0x88));
    s              = _mm512_add_ps(s, _mm512_permute_ps(s, 0x0e));
    s              = _mm512_add_ps(s, _mm512_movehdup_ps(s));
    return _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, s));
}

inline __m512 load(const uint16_t * p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}

// R weight rows by X rows of activations: out[x * stride + k]
template <int R, int X>
inline void dots(const uint16_t * const * w, const float * rows, int64_t n, float * out, size_t stride) {
    __m512 acc[X * R][n_acc];
    each<X * R>([&](auto i) { each<n_acc>([&](auto j) { acc[i][j] = _mm512_setzero_ps(); }); });
    for (int64_t at = 0; at < n; at += step) {
        each<n_acc>([&](auto j) {
            __m512 weights[R];
            each<R>([&](auto k) { weights[k] = load(w[k] + at + j * lanes); });
            each<X>([&](auto x) {
                const __m512 y = _mm512_load_ps(rows + x * n + at + j * lanes);
                each<R>([&](auto k) { acc[x * R + k][j] = _mm512_fmadd_ps(weights[k], y, acc[x * R + k][j]); });
            });
        });
    }
    constexpr int n_sums = (R * X + 3) / 4 * 4;
    __m512        sums[n_sums];
    each<n_sums>([&](auto i) {
        constexpr int at = i < R * X ? int(i) : 0;
        sums[i]          = _mm512_add_ps(_mm512_add_ps(acc[at][0], acc[at][2]), _mm512_add_ps(acc[at][1], acc[at][3]));
    });
    each<n_sums / 4>([&](auto four) {
        const __m128 all = sums_of_four(sums + 4 * four);
        if constexpr (R == 4) {
            _mm_storeu_ps(out + size_t(four) * stride, all);
        } else {
            _mm_storel_pi(reinterpret_cast<__m64 *>(out + size_t(2 * four) * stride), all);
            if constexpr (2 * four + 1 < X) {
                _mm_storeh_pi(reinterpret_cast<__m64 *>(out + size_t(2 * four + 1) * stride), all);
            }
        }
    });
}

// The same for rows of one step (keys of a head): four weight rows stay in registers for all rows of activations.
inline void dots_of_one_step(const uint16_t * const * w, const float * rows, int64_t n_rows, float * out,
                             size_t stride) {
    __m512 weights[4][n_acc];
    each<4>([&](auto k) { each<n_acc>([&](auto j) { weights[k][j] = load(w[k] + j * lanes); }); });
    for (int64_t i = 0; i < n_rows; ++i) {
        __m512 y[n_acc], sums[4];
        each<n_acc>([&](auto j) { y[j] = _mm512_load_ps(rows + i * step + j * lanes); });
        each<4>([&](auto k) {
            __m512 acc[n_acc];
            each<n_acc>([&](auto j) { acc[j] = _mm512_fmadd_ps(weights[k][j], y[j], _mm512_setzero_ps()); });
            sums[k] = _mm512_add_ps(_mm512_add_ps(acc[0], acc[2]), _mm512_add_ps(acc[1], acc[3]));
        });
        _mm_storeu_ps(out + size_t(i) * stride, sums_of_four(sums));
    }
}

[[gnu::flatten]] void multiply(const specee_product & p) {
    const int64_t n    = p.n_in;
    float * const rows = static_cast<float *>(scratch(size_t(p.n_rows * n) * sizeof(float)));
    for (int64_t i = 0; i < p.n_rows; ++i) {
        const auto * from =
            reinterpret_cast<const uint16_t *>(static_cast<const char *>(p.rows) + size_t(i) * p.rows_stride);
        for (int64_t k = 0; k < n; k += lanes) {
            _mm512_store_ps(rows + i * n + k, load(from + k));
        }
    }
    const int R = n == step || p.n_rows == 1 ? 4 : 2; // what fits into registers
    for (int64_t at = 0; at < p.n_out; at += R) {
        const int64_t    r = at + R <= p.n_out ? at : p.n_out - R; // the last ones may be done twice
        const uint16_t * w[4];
        for (int k = 0; k < R; ++k) {
            w[k] = reinterpret_cast<const uint16_t *>(static_cast<const char *>(p.weights) +
                                                      size_t(r + k) * p.weights_stride);
        }
        if (n == step) {
            dots_of_one_step(w, rows, p.n_rows, p.out + r, p.out_stride);
            continue;
        }
        for (int64_t i = 0; i < p.n_rows;) {
            const float * const x    = rows + i * n;
            float * const       out  = p.out + size_t(i) * p.out_stride + size_t(r);
            const int64_t       left = p.n_rows - i;
            if (R == 4) {
                dots<4, 1>(w, x, n, out, p.out_stride);
                i += 1;
            } else if (left == 2 || left == 4) {
                dots<2, 2>(w, x, n, out, p.out_stride);
                i += 2;
            } else if (left == 1) {
                dots<2, 1>(w, x, n, out, p.out_stride);
                i += 1;
            } else {
                dots<2, 3>(w, x, n, out, p.out_stride);
                i += 3;
            }
        }
    }
}

} // namespace

Kernel find_f16(int64_t n_in) {
    return n_in % step == 0 ? multiply : nullptr;
}

} // namespace specee::small_batch

#elif !defined(__aarch64__) // neon_f16.cpp

namespace specee::small_batch {

Kernel find_f16(int64_t) {
    return nullptr;
}

} // namespace specee::small_batch

#endif
