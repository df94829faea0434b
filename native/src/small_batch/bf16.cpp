// Products with BF16 weights. Compiled as ggml is, whose order of additions depends on the instructions it is compiled
// for.
#include "each.h"
#include "small_batch.h"
#include "variants.h"

#if defined(__AVX512BF16__)

#include <immintrin.h>

namespace specee::small_batch {
namespace {

constexpr int lanes = 32;
constexpr int step  = 64;   // two accumulators
constexpr int ahead = 8192; // bytes

inline __m512bh load(const char * p) {
    return (__m512bh) _mm512_loadu_si512(p);
}

// R weight rows by X rows of activations: out[x * stride + k]
template <int R, int X>
[[gnu::flatten]] void dots(const char * weights, size_t weights_stride, const char * rows, size_t rows_stride,
                           int64_t n, float * out, size_t stride) {
    const char * next = weights + ahead;
    __m512       acc[X * R][2];
    each<X * R>([&](auto i) { acc[i][0] = acc[i][1] = _mm512_setzero_ps(); });
    for (int64_t at = 0; at < n; at += step) {
        each<2>([&](auto half) {
            const int64_t bytes = (at + half * lanes) * int64_t(sizeof(uint16_t));
            __m512bh      w[R];
            each<R>([&](auto k) {
                _mm_prefetch(next + 64 * k, _MM_HINT_T0);
                w[k] = load(weights + k * weights_stride + bytes);
            });
            next += 64 * R;
            each<X>([&](auto x) {
                const __m512bh y = load(rows + x * rows_stride + bytes);
                each<R>([&](auto k) { acc[x * R + k][half] = _mm512_dpbf16_ps(acc[x * R + k][half], w[k], y); });
            });
        });
    }
    each<X>([&](auto x) {
        each<R>([&](auto k) { // as ggml_vec_dot_bf16
            double sum = 0;
            sum += double(_mm512_reduce_add_ps(acc[x * R + k][0]));
            sum += double(_mm512_reduce_add_ps(acc[x * R + k][1]));
            out[size_t(x) * stride + size_t(k)] = float(sum);
        });
    });
}

template <int N> void multiply(const specee_product & p) {
    constexpr int R = N == 2 ? 4 : 2, X = N < 4 ? N : N % 4 ? (N + 1) / 2 : 4; // what fits into registers
    for (int64_t at = 0; at < p.n_out; at += R) {
        const int64_t      r    = at + R <= p.n_out ? at : p.n_out - R; // the last ones may be done twice
        const char * const w    = static_cast<const char *>(p.weights) + size_t(r) * p.weights_stride;
        const auto         some = [&](auto n, int from) {
            dots<R, decltype(n)::value>(w, p.weights_stride,
                                        static_cast<const char *>(p.rows) + size_t(from) * p.rows_stride, p.rows_stride,
                                        p.n_in, p.out + size_t(from) * p.out_stride + size_t(r), p.out_stride);
        };
        some(std::integral_constant<int, X>(), 0);
        if constexpr (N > X) {
            some(std::integral_constant<int, N - X>(), X);
        }
    }
}

} // namespace

Kernel find_bf16(int64_t n_in, int64_t n_rows) {
    if (n_in % step || n_rows < 2) { // one row is as fast in ggml's own
        return nullptr;
    }
    return for_rows(n_rows, [](auto n) -> Kernel { return multiply<decltype(n)::value>; });
}

} // namespace specee::small_batch

#elif !defined(__aarch64__) // neon_bf16.cpp

namespace specee::small_batch {

Kernel find_bf16(int64_t, int64_t) {
    return nullptr;
}

} // namespace specee::small_batch

#endif
