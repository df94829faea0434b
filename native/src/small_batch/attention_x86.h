// Vectors of floats for attention.cpp, and the order in which ggml's kernels add what is in one.
#pragma once

// GCC 12's own headers start from an undefined vector
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cstdint>

namespace specee::small_batch {
namespace {

#if defined(__AVX512F__)

struct Floats {
    using V                       = __m512;
    static constexpr int lanes    = 16;
    static constexpr int n_group  = 6; // rows of probabilities at a time: what fits into registers, times four of V
    static constexpr int in_cells = 4; // cells of K at a time, at most

    static V zero() { return _mm512_setzero_ps(); }
    static V load(const float * p) { return _mm512_loadu_ps(p); }
    static V load(const uint16_t * p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
    }
    static void store(float * p, V x) { _mm512_storeu_ps(p, x); }
    static V    set(float x) { return _mm512_set1_ps(x); }
    static V    add(V a, V b) { return _mm512_add_ps(a, b); }
    static V    mul(V a, V b) { return _mm512_mul_ps(a, b); }
    static V    max(V a, V b) { return _mm512_max_ps(a, b); }
    static V    fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
    static V    rounded(V x) { // to F16 and back
        return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }

    // _mm512_reduce_add_ps for 16 vectors at once: the first additions of two cells, four apart, ...
    static V fold(V a, V b) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0xee), _mm512_shuffle_f32x4(a, b, 0x44));
    }
    // ... of four cells, eight apart ...
    static V fold_eight(V a, V b) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0xdd), _mm512_shuffle_f32x4(a, b, 0x88));
    }
    // ... and the last two, of neighbours
    template <bool> static V fold_last(V a, V b, V c, V d) {
        const V x = halves(a, b), y = halves(c, d);
        return _mm512_add_ps(_mm512_shuffle_ps(x, y, 0xdd), _mm512_shuffle_ps(x, y, 0x88));
    }
    static V halves(V a, V b) {
        const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
        return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpackhi_pd(x, y)), _mm512_castpd_ps(_mm512_unpacklo_pd(x, y)));
    }
    template <bool> static __m128 sums_of_four(const V * x) {
        const V s = fold_eight(fold(x[0], x[1]), fold(x[2], x[3]));
        return _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, fold_last<false>(s, s, s, s)));
    }
};

#else

struct Floats {
    using V                       = __m256;
    static constexpr int lanes    = 8;
    static constexpr int n_group  = 3;
    static constexpr int in_cells = 1;

    static V zero() { return _mm256_setzero_ps(); }
    static V load(const float * p) { return _mm256_loadu_ps(p); }
    static V load(const uint16_t * p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))); }
    static void store(float * p, V x) { _mm256_storeu_ps(p, x); }
    static V    set(float x) { return _mm256_set1_ps(x); }
    static V    add(V a, V b) { return _mm256_add_ps(a, b); }
    static V    mul(V a, V b) { return _mm256_mul_ps(a, b); }
    static V    max(V a, V b) { return _mm256_max_ps(a, b); }
    static V    fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
    static V    rounded(V x) { return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }

    static V fold(V a, V b) { // two cells, four apart
        return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
    static V fold_eight(V a, V b); // of longer vectors only
    // as a row alone: neighbours first; as a batch: the halves first
    template <bool as_row> static V fold_last(V a, V b, V c, V d) {
        if constexpr (as_row) {
            return _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        } else {
            const V x = halves(a, b), y = halves(c, d);
            return _mm256_add_ps(_mm256_shuffle_ps(x, y, 0x88), _mm256_shuffle_ps(x, y, 0xdd));
        }
    }
    static V halves(V a, V b) {
        const __m256d x = _mm256_castps_pd(a), y = _mm256_castps_pd(b);
        return _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)), _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
    }
    template <bool as_row> static __m128 sums_of_four(const V * x) {
        const V a = fold(x[0], x[1]), b = fold(x[2], x[3]);
        const V s = fold_last<as_row>(a, b, a, b); // 0, 2, 0, 2 and 1, 3, 1, 3
        return _mm_unpacklo_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    }
};

#endif

} // namespace
} // namespace specee::small_batch
