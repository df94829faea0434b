// The few vector operations that the kernels are written in, for 256 bits (one weight row) and 512 bits (two rows).
//
// A Dot collects products of four neighbouring bytes (with VNNI) or of two (without) until `scaled` or `sum` turns them
// into one 32-bit number for each four bytes: exact, so that all variants give the same numbers.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace specee::small_batch {
namespace { // nothing compiled for one set of instructions may be linked into code for another

inline float half_to_float(uint16_t h) {
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

inline __m256i load_nibbles(const uint8_t * p) { // 16 bytes -> 32 numbers, low nibbles first
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    return _mm256_and_si256(_mm256_set1_epi8(15),
                            _mm256_inserti128_si256(_mm256_castsi128_si256(x), _mm_srli_epi16(x, 4), 1));
}

inline __m256i load_bits(const uint8_t * p) { // 32 bits -> 32 numbers, 0 or 16
    uint32_t x;
    std::memcpy(&x, p, sizeof x);
    const __m256i spread = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i bit    = _mm256_set1_epi64x(int64_t(0x8040201008040201));
    const __m256i bytes  = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(int(x)), spread), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(bytes, bit), _mm256_set1_epi8(16));
}

inline __m256i load_bytes(const void * p) {
    return _mm256_loadu_si256(static_cast<const __m256i *>(p));
}

// One weight row in 256 bits.
struct Avx2 {
    static constexpr int  rows = 1;
    static constexpr bool vnni = false;
    using Int                  = __m256i;
    using Float                = __m256;
    using Dot                  = __m256i;

    static Int                         zero() { return _mm256_setzero_si256(); }
    static Float                       fzero() { return _mm256_setzero_ps(); }
    static Int                         bytes(const void * p) { return load_bytes(p); }
    static Int                         of_rows(const __m256i * p) { return *p; }
    template <class Load> static Int   weights(const char * w, size_t, Load load) { return load(w); }
    template <class Load> static Float per_row(const char * w, size_t, Load load) { return _mm256_set1_ps(load(w)); }
    static Int                         broadcast(const void * p) { return load_bytes(p); } // 32 bytes, for every row
    static Int   broadcast8(const void * p) { return _mm256_set1_epi64x(*static_cast<const int64_t *>(p)); }
    static Int   broadcast4(const void * p) { return _mm256_set1_epi32(*static_cast<const int32_t *>(p)); }
    static Int   set1(int8_t x) { return _mm256_set1_epi8(x); }
    static Float fset1(float x) { return _mm256_set1_ps(x); }
    static Int   low_nibbles(Int x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
    static Int   high_nibbles(Int x) { return _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(15)); }
    template <int N> static Int shift_left(Int x) { return _mm256_slli_epi16(x, N); }
    template <int N> static Int shift_right(Int x) { return _mm256_srli_epi16(x, N); }
    static Int                  and_(Int a, Int b) { return _mm256_and_si256(a, b); }
    static Int                  or_(Int a, Int b) { return _mm256_or_si256(a, b); }
    static Int                  xor_(Int a, Int b) { return _mm256_xor_si256(a, b); }
    static Int                  add(Int a, Int b) { return _mm256_add_epi32(a, b); }
    static Int                  sub(Int a, Int b) { return _mm256_sub_epi32(a, b); }
    template <int N> static Int shift_left32(Int x) { return _mm256_slli_epi32(x, N); }
    static Int                  look_up(__m128i values, Int nibbles) {
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), nibbles);
    }
    static Int madd(Int a, Int b) { return _mm256_madd_epi16(a, b); }

    static Dot dot(Dot d, Int w, Int x) { return _mm256_add_epi16(d, _mm256_maddubs_epi16(w, x)); }
    static Int sum(Dot d) { return _mm256_madd_epi16(d, _mm256_set1_epi16(1)); }
    static Int dot_of_four(Dot start, Int w, Int x) { return sum(dot(start, w, x)); }
    static Dot negative(Dot d) { return _mm256_sub_epi16(zero(), d); }
    static Int scaled(Int acc, Dot d, Int scale) { return add(acc, _mm256_madd_epi16(d, scale)); }
    static Int scale(Int twice) { return twice; } // 16-bit scales, each twice -> what `scaled` takes
    // Of a row's 16-bit scales: number 2g for the first 16 bytes of a vector and 2g + 1 for the others; or g for all.
    static Int scale_pair(Int scales, int g) {
        const __m256i two = _mm256_permutevar8x32_epi32(scales, _mm256_set1_epi32(g));
        return _mm256_shuffle_epi8(two, _mm256_set_m128i(_mm_set1_epi16(0x0302), _mm_set1_epi16(0x0100)));
    }
    static Int scale_one(Int scales, int g) {
        const __m256i two = _mm256_permutevar8x32_epi32(scales, _mm256_set1_epi32(g / 2));
        return _mm256_shuffle_epi8(two, _mm256_set1_epi16(g % 2 ? 0x0302 : 0x0100));
    }
    static Int scale_32(Int scales, int g) { // of a row's 32-bit scales number g, for all
        return _mm256_permutevar8x32_epi32(scales, _mm256_set1_epi32(g));
    }
    static Int signed_pairs(Int w, Int x) { // both signed, neither -128: a Dot
        return _mm256_maddubs_epi16(_mm256_sign_epi8(w, w), _mm256_sign_epi8(x, w));
    }
    static Int signed_dot(Int w, Int x) { return sum(signed_pairs(w, x)); }
    // A Dot that makes up for weights that are stored too large by `offset`.
    static __m256i start(__m256i x, int offset) {
        return _mm256_mullo_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), x), _mm256_set1_epi16(int16_t(-offset)));
    }

    static constexpr int lanes = 8; // of a Float
    static Float         load(const float * p) { return _mm256_loadu_ps(p); }
    static void          store(float * p, Float x) { _mm256_storeu_ps(p, x); }
    static Float         to_float(Int x) { return _mm256_cvtepi32_ps(x); }
    static Float         mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
    static Float         fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }

    // Of types with a scale for each 32 weights.
    template <class T> static Int weights_32(const char * w, size_t) { return T::load(w); }

    // Half floats of each of rows * rows weight rows, scale in the low 16 bits and min above it -> vectors of scales,
    // one for each vector of weights, and the mins of all again and again.
    static void scales(const uint32_t * halves, Float * scale, Float & min) {
        const __m128 both = _mm_cvtph_ps(_mm_cvtsi32_si128(int(*halves)));
        *scale            = _mm256_broadcastss_ps(both);
        min               = _mm256_broadcastss_ps(_mm_movehdup_ps(both));
    }

    // The sum of each row's eight numbers, added as ggml's hsum_float_8 does.
    static void sums(const Float * x, int n, float * out) { // x[n] -> out[n]
        for (int i = 0; i < n; ++i) {
            __m128 s = _mm_add_ps(_mm256_extractf128_ps(x[i], 1), _mm256_castps256_ps128(x[i]));
            s        = _mm_add_ps(s, _mm_movehl_ps(s, s));
            out[i]   = _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
        }
    }

    // Eight columns whose numbers stand in pairs: 4 columns in each of two vectors.
    static constexpr int parts = 2;
    static __m256i pair_sums(const Int * x) { return _mm256_permute4x64_epi64(_mm256_hadd_epi32(x[0], x[1]), 0xd8); }
    static Int columns(__m128i eight, int part) { // 16-bit number of each of 8 columns -> four times, for its 4 halves
        const __m128i four = part ? _mm_unpackhi_epi16(eight, eight) : _mm_unpacklo_epi16(eight, eight);
        return _mm256_set_m128i(_mm_unpackhi_epi32(four, four), _mm_unpacklo_epi32(four, four));
    }
};

#if defined(SPECEE_VNNI_STAND_IN)
// For tests and measurements: the instructions of AVX-VNNI as a CPU with AVX512-VNNI knows them, where a compiler that
// knows neither has 16 registers and no other instruction of AVX512.
inline __m256i dpbusd(__m256i sum, __m256i w, __m256i x) {
    asm("vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w), "xm"(x));
    return sum;
}
inline __m256i dpwssd(__m256i sum, __m256i a, __m256i b) {
    asm("vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(a), "xm"(b));
    return sum;
}
#elif defined(__AVXVNNI__)
inline __m256i dpbusd(__m256i sum, __m256i w, __m256i x) {
    return _mm256_dpbusd_avx_epi32(sum, w, x);
}
inline __m256i dpwssd(__m256i sum, __m256i a, __m256i b) {
    return _mm256_dpwssd_avx_epi32(sum, a, b);
}
#elif defined(__AVX512VNNI__) && defined(__AVX512VL__)
inline __m256i dpbusd(__m256i sum, __m256i w, __m256i x) {
    return _mm256_dpbusd_epi32(sum, w, x);
}
inline __m256i dpwssd(__m256i sum, __m256i a, __m256i b) {
    return _mm256_dpwssd_epi32(sum, a, b);
}
#endif

#if defined(SPECEE_VNNI_STAND_IN) || defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__))
struct AvxVnni : Avx2 {
    static constexpr bool vnni = true;
    static Dot            dot(Dot d, Int w, Int x) { return dpbusd(d, w, x); }
    static Int            dot_of_four(Dot start, Int w, Int x) { return dpbusd(start, w, x); }
    static Dot            negative(Dot d) { return _mm256_sub_epi32(zero(), d); }
    static Int            scaled(Int acc, Dot d, Int scale) { return dpwssd(acc, d, scale); }
    static Int            sum(Dot d) { return d; }
    static Int            scaled_wide(Int acc, Dot d, Int scale) { return add(acc, _mm256_mullo_epi32(d, scale)); }
    static Int            scale(Int twice) { return _mm256_and_si256(twice, _mm256_set1_epi32(0xffff)); }
    static Int            scale_pair(Int scales, int g) { return scale(Avx2::scale_pair(scales, g)); }
    static Int            scale_one(Int scales, int g) { return scale(Avx2::scale_one(scales, g)); }
    static __m256i        start(__m256i x, int offset) {
        return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), x), _mm256_set1_epi16(int16_t(-offset)));
    }
};
#endif

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
struct Places { // of 16-bit scales, 16 for each row
    alignas(64) uint16_t at[8][32] = {};
    constexpr explicit Places(bool pairs) {
        for (int g = 0; g < 8; ++g) {
            for (int i = 0; i < 32; ++i) {
                at[g][i] = uint16_t(i / 16 * 16 + (pairs ? 2 * g + i / 8 % 2 : g));
            }
        }
    }
};
constexpr Places pair_places(true), one_places(false);

// Two weight rows in 512 bits.
struct Avx512Vnni {
    static constexpr int  rows = 2;
    static constexpr bool vnni = true;
    using Int                  = __m512i;
    using Float                = __m512;
    using Dot                  = __m512i;

    static __m512i join(__m256i a, __m256i b) { return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1); }

    static Int                       zero() { return _mm512_setzero_si512(); }
    static Float                     fzero() { return _mm512_setzero_ps(); }
    static Int                       bytes(const void * p) { return _mm512_loadu_si512(p); }
    static Int                       of_rows(const __m256i * p) { return join(p[0], p[1]); }
    template <class Load> static Int weights(const char * w, size_t stride, Load load) {
        return join(load(w), load(w + stride));
    }
    template <class Load> static Float per_row(const char * w, size_t stride, Load load) {
        return _mm512_insertf32x8(_mm512_set1_ps(load(w)), _mm256_set1_ps(load(w + stride)), 1);
    }
    static Int   broadcast(const void * p) { return _mm512_broadcast_i64x4(load_bytes(p)); }
    static Int   broadcast8(const void * p) { return _mm512_set1_epi64(*static_cast<const int64_t *>(p)); }
    static Int   broadcast4(const void * p) { return _mm512_set1_epi32(*static_cast<const int32_t *>(p)); }
    static Int   set1(int8_t x) { return _mm512_set1_epi8(x); }
    static Float fset1(float x) { return _mm512_set1_ps(x); }
    static Int   low_nibbles(Int x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
    static Int   high_nibbles(Int x) { return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15)); }
    template <int N> static Int shift_left(Int x) { return _mm512_slli_epi16(x, N); }
    template <int N> static Int shift_right(Int x) { return _mm512_srli_epi16(x, N); }
    static Int                  and_(Int a, Int b) { return _mm512_and_si512(a, b); }
    static Int                  or_(Int a, Int b) { return _mm512_or_si512(a, b); }
    static Int                  xor_(Int a, Int b) { return _mm512_xor_si512(a, b); }
    static Int                  add(Int a, Int b) { return _mm512_add_epi32(a, b); }
    static Int                  sub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
    template <int N> static Int shift_left32(Int x) { return _mm512_slli_epi32(x, N); }
    static Int                  look_up(__m128i values, Int nibbles) {
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), nibbles);
    }
    static Int madd(Int a, Int b) { return _mm512_madd_epi16(a, b); }

    static Dot dot(Dot d, Int w, Int x) { return _mm512_dpbusd_epi32(d, w, x); }
    static Int sum(Dot d) { return d; }
    static Int scaled(Int acc, Dot d, Int scale) { return _mm512_dpwssd_epi32(acc, d, scale); }
    static Int scaled_wide(Int acc, Dot d, Int scale) { return add(acc, _mm512_mullo_epi32(d, scale)); }
    static Int scale(Int twice) { return _mm512_and_si512(twice, _mm512_set1_epi32(0xffff)); }
    static Int scale_at(Int scales, const uint16_t * places) {
        return _mm512_maskz_permutexvar_epi16(0x55555555, _mm512_load_si512(places), scales);
    }
    static Int scale_pair(Int scales, int g) { return scale_at(scales, pair_places.at[g]); }
    static Int scale_one(Int scales, int g) { return scale_at(scales, one_places.at[g]); }
    static Int scale_32(Int scales, int g) {
        return _mm512_permutexvar_epi32(join(_mm256_set1_epi32(g), _mm256_set1_epi32(8 + g)), scales);
    }
    static __m256i start(__m256i x, int offset) { return AvxVnni::start(x, offset); }

    static constexpr int lanes = 16;
    static Float         load(const float * p) { return _mm512_loadu_ps(p); }
    static void          store(float * p, Float x) { _mm512_storeu_ps(p, x); }
    static Float         to_float(Int x) { return _mm512_cvtepi32_ps(x); }
    static Float         mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
    static Float         fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }

    template <class T> static Int weights_32(const char * w, size_t stride) {
        if constexpr (!T::nibbles) {
            return join(T::load(w), T::load(w + stride));
        } else { // each row's 16 bytes twice, the second time shifted
            const auto & a     = *reinterpret_cast<const typename T::Block *>(w);
            const auto & b     = *reinterpret_cast<const typename T::Block *>(w + stride);
            const auto   bytes = [](const auto & block) {
                return _mm_loadu_si128(reinterpret_cast<const __m128i *>(block.qs));
            };
            const Int raw = _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(bytes(a)), 0xff00, bytes(b));
            const Int x   = _mm512_and_si512(_mm512_srlv_epi64(raw, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0)),
                                             _mm512_set1_epi8(15));
            if constexpr (!T::fifth_bits) {
                return x;
            } else {
                uint32_t bits[2];
                std::memcpy(&bits[0], a.qh, sizeof bits[0]);
                std::memcpy(&bits[1], b.qh, sizeof bits[1]);
                const __mmask64 both = bits[0] | uint64_t(bits[1]) << 32;
                return _mm512_mask_add_epi8(x, both, x, _mm512_set1_epi8(16));
            }
        }
    }

    static void scales(const uint32_t * halves, Float * scale, Float & min) { // of four rows
        const auto   h    = [halves](int i) { return int(halves[i]); };
        const __m256 both = _mm256_cvtph_ps(_mm_set_epi32(h(3), h(2), h(1), h(0)));
        const __m512 wide = _mm512_castps256_ps512(both);
        scale[0] = _mm512_permutexvar_ps(_mm512_set_epi32(2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0), wide);
        scale[1] = _mm512_permutexvar_ps(_mm512_set_epi32(6, 6, 6, 6, 6, 6, 6, 6, 4, 4, 4, 4, 4, 4, 4, 4), wide);
        min      = _mm512_permutexvar_ps(_mm512_set_epi32(7, 5, 3, 1, 7, 5, 3, 1, 7, 5, 3, 1, 7, 5, 3, 1), wide);
    }

    // x[n] holds rows 2i and 2i + 1: out[2n]
    static void sums(const Float * x, int n, float * out) {
        int i = 0;
        for (; i + 1 < n; i += 2) {
            const __m512 low  = _mm512_shuffle_f32x4(x[i], x[i + 1], 0x88);
            const __m512 high = _mm512_shuffle_f32x4(x[i], x[i + 1], 0xdd);
            __m512       s    = _mm512_add_ps(high, low); // a row in each 128 bits
            s                 = _mm512_add_ps(s, _mm512_permute_ps(s, 0x0e));
            s                 = _mm512_add_ps(s, _mm512_movehdup_ps(s));
            _mm_storeu_ps(out + 2 * i, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, s)));
        }
        if (i < n) {
            const __m256 both[2] = { _mm512_castps512_ps256(x[i]), _mm512_extractf32x8_ps(x[i], 1) };
            Avx2::sums(both, 2, out + 2 * i);
        }
    }

    static constexpr int parts = 1;
    static __m256i       pair_sums(const Int * x) {
        return _mm512_cvtepi64_epi32(_mm512_add_epi32(*x, _mm512_srli_epi64(*x, 32)));
    }
    static Int columns(__m128i eight, int) {
        const __m512i wide  = _mm512_cvtepu16_epi64(eight);
        const __m512i twice = _mm512_or_si512(wide, _mm512_slli_epi64(wide, 16));
        return _mm512_or_si512(twice, _mm512_slli_epi64(twice, 32));
    }
};
#endif

} // namespace
} // namespace specee::small_batch
