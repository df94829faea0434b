// Products with F16 weights on ARM: the attention over the K/V cache. Compiled as ggml is: where it may, ggml adds in
// half precision.
#if defined(__aarch64__)

#include "each.h"
#include "small_batch.h"
#include "variants.h"

#include <arm_neon.h>

namespace specee::small_batch {
namespace {

constexpr int n_acc = 4; // accumulators of ggml's kernel

#if defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
using Vector        = float16x8_t;
constexpr int lanes = 8;
inline Vector load(const __fp16 * x) {
    return vld1q_f16(x);
}
inline Vector fma(Vector sum, Vector x, Vector y) {
    return vfmaq_f16(sum, x, y);
}
inline float sum_of(const Vector * acc) {
    const Vector      all = vaddq_f16(vaddq_f16(acc[0], acc[2]), vaddq_f16(acc[1], acc[3]));
    const float32x4_t low = vcvt_f32_f16(vget_low_f16(all)), high = vcvt_f32_f16(vget_high_f16(all));
    return vaddvq_f32(vaddq_f32(low, high));
}
#else
using Vector        = float32x4_t;
constexpr int lanes = 4;
inline Vector load(const __fp16 * x) {
    return vcvt_f32_f16(vld1_f16(x));
}
inline Vector fma(Vector sum, Vector x, Vector y) {
    return vfmaq_f32(sum, x, y);
}
inline float sum_of(const Vector * acc) {
    return vaddvq_f32(vaddq_f32(vaddq_f32(acc[0], acc[2]), vaddq_f32(acc[1], acc[3])));
}
#endif
constexpr int step = n_acc * lanes;

// R weight rows by X rows of activations: out[x * stride + k]
template <int R, int X> inline void dots(const specee_product & p, int64_t first_weight, int64_t first_row) {
    const __fp16 *w[R], *x[X];
    Vector        acc[X][R][n_acc];
    each<R>([&](auto k) {
        w[k] = reinterpret_cast<const __fp16 *>(static_cast<const char *>(p.weights) +
                                                size_t(first_weight + k) * p.weights_stride);
    });
    each<X>([&](auto i) {
        x[i] =
            reinterpret_cast<const __fp16 *>(static_cast<const char *>(p.rows) + size_t(first_row + i) * p.rows_stride);
        each<R>([&](auto k) { each<n_acc>([&](auto j) { acc[i][k][j] = Vector{}; }); });
    });
    for (int64_t at = 0; at < p.n_in; at += step) {
        each<n_acc>([&](auto j) {
            Vector weights[R];
            each<R>([&](auto k) { weights[k] = load(w[k] + at + j * lanes); });
            each<X>([&](auto i) {
                const Vector y = load(x[i] + at + j * lanes);
                each<R>([&](auto k) { acc[i][k][j] = fma(acc[i][k][j], weights[k], y); });
            });
        });
    }
    each<X>([&](auto i) {
        each<R>([&](auto k) {
            p.out[size_t(first_row + i) * p.out_stride + size_t(first_weight + k)] = sum_of(acc[i][k]);
        });
    });
}

[[gnu::flatten]] void multiply(const specee_product & p) {
    const int R = p.n_rows == 1 ? 4 : 2; // what fits into registers
    for (int64_t at = 0; at < p.n_out; at += R) {
        const int64_t r = at + R <= p.n_out ? at : p.n_out - R; // the last ones may be done twice
        for (int64_t i = 0; i < p.n_rows;) {
            const int64_t left = p.n_rows - i;
            if (R == 4) {
                dots<4, 1>(p, r, i);
                i += 1;
            } else if (left == 2 || left == 4) {
                dots<2, 2>(p, r, i);
                i += 2;
            } else if (left == 1) {
                dots<2, 1>(p, r, i);
                i += 1;
            } else {
                dots<2, 3>(p, r, i);
                i += 3;
            }
        }
    }
}

} // namespace

Kernel find_f16(int64_t n_in) {
#if defined(__ARM_FEATURE_SVE) // ggml's kernel is another one
    return nullptr;
#else
    return n_in % step == 0 ? multiply : nullptr;
#endif
}

} // namespace specee::small_batch

#endif
