// What the NEON kernels share.
#pragma once

#define GGML_COMMON_DECL_C
#include "ggml-common.h"
#include "small_batch.h"
#include "value_tables.h"
#include "variants.h"

#include <arm_neon.h>

#include <cstring>

namespace specee::small_batch {
namespace { // nothing compiled for one set of instructions may be linked into code for another

inline float half_to_float(uint16_t h) {
    __fp16 x;
    std::memcpy(&x, &h, sizeof x);
    return x;
}

inline float half_of_power(uint8_t e) { // half of 2^(e - 127), as ggml_e8m0_to_fp32_half
    const uint32_t bits = e < 2 ? 0x00200000u << e : uint32_t(e - 1) << 23;
    float          x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

inline int8x16_t low_nibbles(uint8x16_t x) {
    return vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(15)));
}

inline int8x16_t high_nibbles(uint8x16_t x) {
    return vreinterpretq_s8_u8(vshrq_n_u8(x, 4));
}

inline int8x16_t with_bits(int8x16_t x, uint8x16_t bits) {
    return vorrq_s8(x, vreinterpretq_s8_u8(bits));
}

inline int16x8_t widen(const uint8_t * eight) {
    return vreinterpretq_s16_u16(vmovl_u8(vld1_u8(eight)));
}

// Sums of 16 numbers each -> of 32 numbers each.
inline int16x8_t sums_of_32(const int16_t * sums) {
    return vpaddq_s16(vld1q_s16(sums), vld1q_s16(sums + 8));
}

inline int32_t dot(int16x8_t a, int16x8_t b) {
    return vaddvq_s32(vmlal_high_s16(vmull_s16(vget_low_s16(a), vget_low_s16(b)), a, b));
}

// The 6-bit scales (bytes 0 to 7) and mins (8 to 15) of Q4_K and Q5_K, or of eight repacked rows.
struct ScalesMins {
    uint8_t scale[8], min[8];

    explicit ScalesMins(const uint8_t * packed) {
        for (int k = 0; k < 4; ++k) {
            scale[k]     = packed[k] & 63;
            min[k]       = packed[4 + k] & 63;
            scale[4 + k] = uint8_t((packed[8 + k] & 15) | (packed[k] >> 6 << 4));
            min[4 + k]   = uint8_t((packed[8 + k] >> 4) | (packed[4 + k] >> 6 << 4));
        }
    }
};

} // namespace
} // namespace specee::small_batch
