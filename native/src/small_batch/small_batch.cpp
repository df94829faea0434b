#include "small_batch.h"

#include "columns.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "variants.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(SPECEE_AVX2)
#include <cpuid.h>
#endif
// Where ggml itself multiplies without the dot product instructions, its order of additions is a different one.
#if defined(SPECEE_NEON_DOTPROD) && defined(__ARM_FEATURE_DOTPROD)
#define SPECEE_NEON
#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#endif

namespace specee::small_batch {
namespace {

// The kernels for one set of instructions.
struct Variant {
    Kernel (*rows)(int type, specee_layout layout, int64_t n_rows);
    ColumnKernel (*columns)(int type, int64_t n_rows, bool as_batch);
};
constexpr Variant none = { nullptr, nullptr };

#if defined(SPECEE_NEON)
#if defined(__APPLE__)
bool cpu_has(const char * feature) {
    int    answer = 0;
    size_t size   = sizeof answer;
    return !sysctlbyname(feature, &answer, &size, nullptr, 0) && answer;
}
bool has_dotprod() {
    return cpu_has("hw.optional.arm.FEAT_DotProd");
}
bool has_i8mm() {
    return cpu_has("hw.optional.arm.FEAT_I8MM");
}
#elif defined(__linux__)
bool has_dotprod() {
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
}
bool has_i8mm() {
    return getauxval(AT_HWCAP2) & HWCAP2_I8MM;
}
#else
bool has_dotprod() {
    return true; // ggml was compiled for it
}
bool has_i8mm() {
    return false;
}
#endif
#endif

#if defined(SPECEE_AVX2)
// clang has no names for these before version 16
bool has_f16c() {
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
bool has_avx_vnni() {
#if defined(SPECEE_VNNI_STAND_IN) // (simd_x86.h)
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl");
#endif
    unsigned a = 0, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

// The best one that this CPU runs; SPECEE_KERNELS names another one, or "none" (tests and comparisons).
Variant choose() {
    const char * const wanted    = std::getenv("SPECEE_KERNELS");
    const auto         is_wanted = [wanted](const char * name) { return !wanted || !std::strcmp(wanted, name); };
    (void) is_wanted;
#if defined(SPECEE_AVX2)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c()) {
        return none;
    }
#if defined(SPECEE_AVX512_VNNI)
    if (is_wanted("avx512_vnni") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        return { find_avx512_vnni, find_columns_avx512_vnni };
    }
#endif
#if defined(SPECEE_AVX_VNNI)
    if (is_wanted("avx_vnni") && has_avx_vnni()) {
        return { find_avx_vnni, find_columns_avx_vnni };
    }
#endif
    if (is_wanted("avx2")) {
        return { find_avx2, find_columns_avx2 };
    }
#endif
#if defined(SPECEE_NEON)
#if defined(SPECEE_NEON_I8MM)
    if (is_wanted("neon_i8mm") && has_i8mm()) {
        return { find_neon_i8mm, find_columns_neon_i8mm };
    }
#endif
    if (is_wanted("neon_dotprod") && has_dotprod()) {
        return { find_neon_dotprod, find_columns_neon_dotprod };
    }
#endif
    return none;
}
const Variant & variant() {
    static const Variant chosen = choose();
    return chosen;
}

constexpr int64_t least_rows = 8; // of weights; kernels take up to four at a time

// Whether ggml's kernel for one row adds in an order of its own: where it uses SVE.
bool is_special(int type, specee_layout layout) {
#if defined(__ARM_FEATURE_SVE)
    return layout == SPECEE_ROWS && (type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q8_0 || type == GGML_TYPE_Q2_K ||
                                     type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q6_K);
#else
    (void) type, (void) layout;
    return false;
#endif
}

// The kernel for weights that do not lie in columns, or nullptr.
Kernel find(int type, specee_layout layout, int64_t n_in, int64_t n_rows) {
    return !variant().rows || is_special(type, layout) ? nullptr
           : layout == SPECEE_AMX_16X4                 ? find_amx_layout(type, n_rows)
           : type == GGML_TYPE_F16                     ? find_f16(n_in)
           : type == GGML_TYPE_BF16                    ? find_bf16(n_in, n_rows)
                                                       : variant().rows(type, layout, n_rows);
}

} // namespace

ColumnKernel find_columns(int type, int64_t n_rows, bool as_batch) {
    return variant().columns && !is_special(type, SPECEE_ROWS) ? variant().columns(type, n_rows, as_batch)
                                                               : ColumnKernel{};
}

bool has_columns() {
    return variant().columns != nullptr;
}

bool is_repacked(int type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_IQ4_NL:
        case GGML_TYPE_MXFP4: return true;
        case GGML_TYPE_Q2_K: return ggml_cpu_has_avx512();
        default: return false;
    }
}

void * scratch(size_t bytes) {
    constexpr uintptr_t            alignment = 64;
    thread_local std::vector<char> memory;
    if (memory.size() < bytes + alignment) {
        memory.resize(bytes + alignment);
    }
    return reinterpret_cast<void *>((reinterpret_cast<uintptr_t>(memory.data()) + alignment - 1) & ~(alignment - 1));
}

// Whether there is memory for what any kernel here makes of the activations: at most a float of each number, of one row
// more where rows go in pairs. Kernels run in threads of ggml's, which no exception may leave.
static bool have_scratch(const specee_product & p) {
    try {
        scratch(size_t((p.n_rows + 3) * p.n_in) * sizeof(float));
        return true;
    } catch (const std::bad_alloc &) {
        return false;
    }
}

} // namespace specee::small_batch

bool specee_small_batch(const specee_product * p) {
    using namespace specee::small_batch;
    if (p->n_rows > SPECEE_SMALL_BATCH || p->n_out < least_rows || !have_scratch(*p)) {
        return false;
    }
    if (p->layout == SPECEE_COLUMNS) {
        const ColumnKernel columns = find_columns(p->type, p->n_rows, false);
        if (!columns.multiply) {
            return false;
        }
        const int64_t  n_blocks = p->n_in / ggml_blck_size(ggml_get_type_traits_cpu(ggml_type(p->type))->vec_dot_type);
        specee_product packed   = *p;
        void * const   to       = scratch(columns.packed_block * size_t(n_blocks));
        columns.pack(*p, to);
        packed.rows = to;
        columns.multiply(packed);
        return true;
    }
    const Kernel kernel = find(p->type, p->layout, p->n_in, p->n_rows);
    if (!kernel) {
        return false;
    }
    kernel(*p);
    return true;
}

bool specee_has_small_batch(int type, int64_t n_in, int64_t n_out) {
    using namespace specee::small_batch;
    if (n_out < least_rows) {
        return false;
    }
    if (specee_has_columns(type, n_out)) {
        return true;
    }
    const auto has     = [&](specee_layout layout) { return find(type, layout, n_in, 2) != nullptr; };
    const bool eight   = n_out % 8 == 0 && (has(SPECEE_REPACKED_8X8) || has(SPECEE_REPACKED_8X4));
    const bool four    = n_out % 4 == 0 && (has(SPECEE_REPACKED_4X8) || has(SPECEE_REPACKED_4X4));
    const bool is_rows = type != GGML_TYPE_Q2_K || n_out % 8 || !is_repacked(type);
    return eight || four || (is_rows && has(SPECEE_ROWS));
}

bool specee_small_batch_chunk(const ggml_tensor * dst, const void * rows, size_t rows_stride, int64_t r0_start,
                              int64_t r0_end, int64_t r1_start, int64_t r1_end) {
    const ggml_tensor * const weights       = dst->src[0];
    const ggml_tensor * const x             = dst->src[1];
    const bool                planes_follow = dst->ne[2] == 1 || dst->nb[2] == dst->ne[1] * dst->nb[1];
    const bool                rows_follow   = x->type == GGML_TYPE_F32 || ggml_is_contiguous(x);
    if (dst->ne[1] > SPECEE_SMALL_BATCH || dst->ne[3] != 1 || !planes_follow || !rows_follow) {
        return false;
    }
    const int64_t n_sharing = dst->ne[1] * (dst->ne[2] / weights->ne[2]); // rows that meet the same weights
    for (int64_t r1 = r1_start; r1 < r1_end;) {
        const int64_t        plane   = r1 / n_sharing;
        const int64_t        end     = std::min({ r1_end, (plane + 1) * n_sharing, r1 + SPECEE_SMALL_BATCH });
        const specee_product product = {
            weights->type,
            SPECEE_ROWS,
            weights->ne[0],
            static_cast<const char *>(weights->data) + plane * weights->nb[2] + r0_start * weights->nb[1],
            weights->nb[1],
            r0_end - r0_start,
            static_cast<const char *>(rows) + r1 * rows_stride,
            rows_stride,
            end - r1,
            reinterpret_cast<float *>(static_cast<char *>(dst->data) + r1 * dst->nb[1]) + r0_start,
            dst->nb[1] / sizeof(float)
        };
        if (!specee_small_batch(&product)) {
            return false;
        }
        r1 = end;
    }
    return true;
}
