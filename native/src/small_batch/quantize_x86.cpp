// Activations to 8 bits for the K types: what ggml does one number at a time, with its bits. Compiled as ggml is.
#include "small_batch.h"

#if defined(__AVX2__)

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include <immintrin.h>

#include <cstring>

namespace {

inline __m256 magnitude(__m256 x) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

float largest(__m256 x) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m        = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

void quantize(const float * x, block_q8_K & to) {
    __m256 most = _mm256_setzero_ps();
    for (int k = 0; k < QK_K; k += 8) {
        most = _mm256_max_ps(magnitude(_mm256_loadu_ps(x + k)), most);
    }
    const float amax = largest(most);
    if (amax == 0.0f) {
        std::memset(&to, 0, sizeof to);
        return;
    }
    float max = amax; // with the sign of the first that is as large
    for (int k = 0; k < QK_K; k += 8) {
        const __m256 v    = _mm256_loadu_ps(x + k);
        const int    mask = _mm256_movemask_ps(_mm256_cmp_ps(magnitude(v), _mm256_set1_ps(amax), _CMP_EQ_OQ));
        if (mask) {
            int first = 0;
            while (!(mask >> first & 1)) {
                ++first;
            }
            max = x[k + first];
            break;
        }
    }
    const float   scale = -127.0f / max;
    const __m256  by    = _mm256_set1_ps(scale);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); // undoes what the packs do to 128-bit halves
    for (int k = 0; k < QK_K; k += 32) {
        __m256i v[4];
        for (int i = 0; i < 4; ++i) {
            v[i] = _mm256_cvtps_epi32(_mm256_mul_ps(by, _mm256_loadu_ps(x + k + 8 * i)));
        }
        const __m256i half = _mm256_packs_epi32(v[0], v[1]), other = _mm256_packs_epi32(v[2], v[3]);
        const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(half, other), order);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(to.qs + k), bytes);
        const __m256i pairs  = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
        __m256i       sums   = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); // of four each
        sums                 = _mm256_hadd_epi32(sums, sums);
        sums                 = _mm256_hadd_epi32(sums, sums);
        to.bsums[k / 16]     = int16_t(_mm256_extract_epi32(sums, 0));
        to.bsums[k / 16 + 1] = int16_t(_mm256_extract_epi32(sums, 4));
    }
    to.d = 1 / scale;
}

} // namespace

bool specee_quantize_q8_k(const float * x, void * to, int64_t n) {
    for (int64_t k = 0; k < n; k += QK_K) {
        quantize(x + k, static_cast<block_q8_K *>(to)[k / QK_K]);
    }
    return true;
}

#else

bool specee_quantize_q8_k(const float *, void *, int64_t) {
    return false;
}

#endif
