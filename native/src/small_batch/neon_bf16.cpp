// Products with BF16 weights on ARM. ggml adds the products of single precision one after the other in double
// precision; here several rows of activations stand side by side, each with its sum.
#if defined(__aarch64__)

#include "small_batch.h"
#include "variants.h"

#include <arm_neon.h>

#include <cstring>

namespace specee::small_batch {
namespace {

constexpr int lanes = 4; // rows of activations in a vector
constexpr int R     = 4; // weight rows at a time

inline float to_float(uint16_t x) {
    const uint32_t bits = uint32_t(x) << 16;
    float          y;
    std::memcpy(&y, &bits, sizeof y);
    return y;
}

template <int N> void multiply(const specee_product & p) {
    constexpr int Q  = (N + lanes - 1) / lanes;
    auto * const  xs = static_cast<float *>(scratch(size_t(p.n_in) * Q * lanes * sizeof(float)));
    for (int i = 0; i < Q * lanes; ++i) {
        const int    from = i < N ? i : 0; // what is not asked for is computed as well
        const auto * x =
            reinterpret_cast<const uint16_t *>(static_cast<const char *>(p.rows) + size_t(from) * p.rows_stride);
        for (int64_t k = 0; k < p.n_in; ++k) {
            xs[k * Q * lanes + i] = to_float(x[k]);
        }
    }
    for (int64_t at = 0; at < p.n_out; at += R) {
        const int64_t    r = at + R <= p.n_out ? at : p.n_out - R; // the last ones may be done twice
        const uint16_t * w[R];
        float64x2_t      sums[R][Q][2];
        for (int j = 0; j < R; ++j) {
            w[j] = reinterpret_cast<const uint16_t *>(static_cast<const char *>(p.weights) +
                                                      size_t(r + j) * p.weights_stride);
            for (int q = 0; q < Q; ++q) {
                sums[j][q][0] = sums[j][q][1] = vdupq_n_f64(0);
            }
        }
        for (int64_t k = 0; k < p.n_in; ++k) {
            for (int q = 0; q < Q; ++q) {
                const float32x4_t x = vld1q_f32(xs + k * Q * lanes + q * lanes);
                for (int j = 0; j < R; ++j) {
                    const float32x4_t product = vmulq_n_f32(x, to_float(w[j][k]));
                    sums[j][q][0]             = vaddq_f64(sums[j][q][0], vcvt_f64_f32(vget_low_f32(product)));
                    sums[j][q][1]             = vaddq_f64(sums[j][q][1], vcvt_high_f64_f32(product));
                }
            }
        }
        for (int j = 0; j < R; ++j) {
            for (int i = 0; i < N; ++i) {
                const float64x2_t two                           = sums[j][i / lanes][i % lanes / 2];
                p.out[size_t(i) * p.out_stride + size_t(r + j)] = float(i % 2 ? two[1] : two[0]);
            }
        }
    }
}

} // namespace

Kernel find_bf16(int64_t, int64_t n_rows) {
    return for_rows(n_rows, [](auto n) -> Kernel { return multiply<decltype(n)::value>; });
}

} // namespace specee::small_batch

#endif
