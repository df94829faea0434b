// What the x86 kernels share.
#pragma once

#define GGML_COMMON_DECL_C
#include "ggml-common.h"
#include "simd_x86.h"
#include "small_batch.h"
#include "value_tables.h"
#include "variants.h"

#include <algorithm>

namespace specee::small_batch {
namespace {

constexpr int prefetch_ahead = 8192; // bytes

inline void prefetch(const char * from, int bytes) {
    for (int at = 0; at < bytes; at += 64) {
        _mm_prefetch(from + prefetch_ahead + at, _MM_HINT_T0);
    }
}

const char * row_of(const specee_product & p, int i) {
    return static_cast<const char *>(p.rows) + size_t(i) * p.rows_stride;
}

inline __m128i table_of(const Values & values) {
    return _mm_load_si128(reinterpret_cast<const __m128i *>(values.at));
}

template <class T> float scale_of(const char * w) {
    return half_to_float(reinterpret_cast<const typename T::Block *>(w)->d);
}

} // namespace
} // namespace specee::small_batch
