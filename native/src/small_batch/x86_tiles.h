// Tiles of 16 weight rows, side by side in the lanes of 512 bits: what the kernels for ggml's AMX layout and for ours
// share.
#pragma once

#include "x86_column_rows.h"

namespace specee::small_batch {
namespace {

inline __m512i vector_at(const char * p) {
    return _mm512_loadu_si512(p);
}
inline __m512 halves_at(const char * p) { // of 16 rows
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}
inline __m512i four_of(const int8_t * x) { // the same four numbers for each weight row
    int32_t four;
    std::memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}
inline __m512i or_masked(__m512i a, __m512i b, __m512i mask) { // a | (b & mask)
    return _mm512_ternarylogic_epi32(a, b, mask, 0xf8);
}
inline void load_nibbles(const char * p, __m512i * low, __m512i * high) {
    const __m512i raw = vector_at(p), mask = _mm512_set1_epi8(15);
    *low  = _mm512_and_si512(raw, mask);
    *high = _mm512_and_si512(_mm512_srli_epi16(raw, 4), mask);
}

inline __m512i look_up(const Values & values, __m512i nibbles) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table_of(values)), nibbles);
}
inline __m512 exponents_at(const char * p) { // of 16 rows: half of 2^(e - 127), as ggml_e8m0_to_fp32_half
    const __m512i   e      = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    const __m512i   normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __mmask16 tiny   = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, tiny, _mm512_set1_epi32(0x00200000), e));
}

// sum + the products of 4 * n weights with each.
template <int n> inline __m512i dot(__m512i sum, const __m512i * w, const int8_t * x) {
    each<n>([&](auto k) { sum = _mm512_dpbusd_epi32(sum, w[k], four_of(x + 4 * k)); });
    return sum;
}

} // namespace
} // namespace specee::small_batch
