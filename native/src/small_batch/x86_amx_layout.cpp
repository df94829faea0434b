// Weights in the layout of ggml's AMX code: compiled as that is, and where that is (amx/mmq.cpp). It uses no tile: the
// kernel whose bits these are, ggml's for one row, is AVX512-VNNI as well.
#include "small_batch.h"
#include "variants.h"

#if defined(__AMX_INT8__) && defined(__AVX512VNNI__)

#include "ggml.h"
#include "x86_amx_layout.h"

namespace specee::small_batch {

Kernel find_amx_layout(int type, int64_t n_rows) {
    return for_rows(n_rows, [=](auto n) -> Kernel {
        constexpr int N = decltype(n)::value;
        switch (type) {
            case GGML_TYPE_Q4_0: return multiply_tiles<TilesQ4_0, N>;
            case GGML_TYPE_Q4_1: return multiply_tiles<TilesQ4_1, N>;
            case GGML_TYPE_Q8_0: return multiply_tiles<TilesQ8_0, N>;
            case GGML_TYPE_Q4_K: return multiply_tiles<TilesQ4_K, N>;
            case GGML_TYPE_Q5_K: return multiply_tiles<TilesQ5_K, N>;
            case GGML_TYPE_Q6_K: return multiply_tiles<TilesQ6_K, N>;
            default: return nullptr;
        }
    });
}

} // namespace specee::small_batch

#else

namespace specee::small_batch {

Kernel find_amx_layout(int, int64_t) {
    return nullptr;
}

} // namespace specee::small_batch

#endif
