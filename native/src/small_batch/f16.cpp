// Products with F16 weights: the attention over the K/V cache. Compiled as ggml is, whose order of additions depends on
// the instructions it is compiled for.
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

void multiply(const specee_product & p) {
    constexpr int R    = 4;
    const int64_t n    = p.n_in;
    float * const rows = static_cast<float *>(scratch(size_t(p.n_rows * n) * sizeof(float)));
    for (int64_t i = 0; i < p.n_rows; ++i) {
        const auto * from =
            reinterpret_cast<const uint16_t *>(static_cast<const char *>(p.rows) + size_t(i) * p.rows_stride);
        for (int64_t k = 0; k < n; k += lanes) {
            _mm512_store_ps(rows + i * n + k, load(from + k));
        }
    }
    for (int64_t at = 0; at < p.n_out; at += R) {
        const int64_t    r = at + R <= p.n_out ? at : p.n_out - R;
        const uint16_t * w[R];
        for (int k = 0; k < R; ++k) {
            w[k] = reinterpret_cast<const uint16_t *>(static_cast<const char *>(p.weights) +
                                                      size_t(r + k) * p.weights_stride);
        }
        for (int64_t i = 0; i < p.n_rows; ++i) {
            const float * const row = rows + i * n;
            __m512              acc[R][n_acc];
            for (int k = 0; k < R; ++k) {
                for (int j = 0; j < n_acc; ++j) {
                    acc[k][j] = _mm512_setzero_ps();
                }
            }
            for (int64_t x = 0; x < n; x += step) {
                for (int j = 0; j < n_acc; ++j) {
                    const __m512 y = _mm512_load_ps(row + x + j * lanes);
                    for (int k = 0; k < R; ++k) {
                        acc[k][j] = _mm512_fmadd_ps(load(w[k] + x + j * lanes), y, acc[k][j]);
                    }
                }
            }
            __m512 sums[R];
            for (int k = 0; k < R; ++k) {
                sums[k] = _mm512_add_ps(_mm512_add_ps(acc[k][0], acc[k][2]), _mm512_add_ps(acc[k][1], acc[k][3]));
            }
            _mm_storeu_ps(p.out + size_t(i) * p.out_stride + size_t(r), sums_of_four(sums));
        }
    }
}

} // namespace

Kernel find_f16(int64_t n_in) {
    return n_in % step == 0 ? multiply : nullptr;
}

} // namespace specee::small_batch

#else

namespace specee::small_batch {

Kernel find_f16(int64_t) {
    return nullptr;
}

} // namespace specee::small_batch

#endif
