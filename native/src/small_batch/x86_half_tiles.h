// Half tiles: eight of a tile's 16 weight rows, in the lanes of 256 bits. A tile's vectors are 64 bytes apart, or 32
// where a row has 16 bits in them; the second half of the rows begins in the middle of each.
#pragma once

#include "x86_column_rows.h"

namespace specee::small_batch {
namespace {

constexpr int half_rows = tile_rows / 2;

inline __m256i half_at(const char * p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
}
inline __m256 eight_halves_at(const char * p) { // half floats of eight rows
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
inline __m256 eight_exponents_at(const char * p) { // of eight rows: half of 2^(e - 127), as ggml_e8m0_to_fp32_half
    const __m256i e      = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p)));
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i tiny   = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, tiny, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
}
inline __m256i four_for_half(const void * x) { // the same four bytes for each weight row
    int32_t four;
    std::memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}
inline __m256i or_masked(__m256i a, __m256i b, __m256i mask) { // a | (b & mask)
    return _mm256_or_si256(a, _mm256_and_si256(b, mask));
}
template <int upper> inline __m256i half_nibbles(const char * p) {
    const __m256i raw = half_at(p);
    return _mm256_and_si256(upper ? _mm256_srli_epi16(raw, 4) : raw, _mm256_set1_epi8(15));
}
inline void load_half_nibbles(const char * p, __m256i * low, __m256i * high) {
    const __m256i raw = half_at(p), mask = _mm256_set1_epi8(15);
    *low  = _mm256_and_si256(raw, mask);
    *high = _mm256_and_si256(_mm256_srli_epi16(raw, 4), mask);
}
inline __m256i look_up_half(const Values & values, __m256i nibbles) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table_of(values)), nibbles);
}

} // namespace
} // namespace specee::small_batch
