// Our NEON kernels against ggml's for one row, on random blocks: the same bits for 1 to 8 rows. Prints what it
// compared, and a line for each difference. Built and run by test_small_batch_arm.py.
#define GGML_COMMON_DECL_C
#include "ggml-common.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "small_batch/columns.h"
#include "small_batch/small_batch.h"

#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

extern "C" { // of ggml-cpu
#define VEC_DOT(name) void name(int, float *, size_t, const void *, size_t, const void *, size_t, int);
#define GEMV(name) void name(int, float *, size_t, const void *, const void *, int, int);
VEC_DOT(ggml_vec_dot_q4_0_q8_0)
VEC_DOT(ggml_vec_dot_q4_1_q8_1)
VEC_DOT(ggml_vec_dot_q5_0_q8_0)
VEC_DOT(ggml_vec_dot_q5_1_q8_1)
VEC_DOT(ggml_vec_dot_q8_0_q8_0)
VEC_DOT(ggml_vec_dot_iq4_nl_q8_0)
VEC_DOT(ggml_vec_dot_mxfp4_q8_0)
VEC_DOT(ggml_vec_dot_q2_K_q8_K)
VEC_DOT(ggml_vec_dot_q3_K_q8_K)
VEC_DOT(ggml_vec_dot_iq4_xs_q8_K)
VEC_DOT(ggml_vec_dot_q4_K_q8_K)
VEC_DOT(ggml_vec_dot_q5_K_q8_K)
VEC_DOT(ggml_vec_dot_q6_K_q8_K)
GEMV(ggml_gemv_q4_0_4x4_q8_0)
GEMV(ggml_gemv_q4_0_4x8_q8_0)
GEMV(ggml_gemv_q8_0_4x4_q8_0)
GEMV(ggml_gemv_q8_0_4x8_q8_0)
GEMV(ggml_gemv_iq4_nl_4x4_q8_0)
GEMV(ggml_gemv_mxfp4_4x4_q8_0)
GEMV(ggml_gemv_q4_K_8x4_q8_K)
GEMV(ggml_gemv_q4_K_8x8_q8_K)
GEMV(ggml_gemv_q5_K_8x4_q8_K)
GEMV(ggml_gemv_q5_K_8x8_q8_K)
GEMV(ggml_gemv_q6_K_8x4_q8_K)
GEMV(ggml_gemv_q6_K_8x8_q8_K)
void ggml_vec_dot_f16(int, float *, size_t, ggml_fp16_t *, size_t, ggml_fp16_t *, size_t, int);
void ggml_vec_dot_bf16(int, float *, size_t, ggml_bf16_t *, size_t, ggml_bf16_t *, size_t, int);
}

// What the kernels ask about columns, which here all have 256 weights to a block; ggml's answers would need all of it.
extern "C" {
const ggml_type_traits_cpu * ggml_get_type_traits_cpu(ggml_type) {
    static const ggml_type_traits_cpu traits = { nullptr, nullptr, GGML_TYPE_Q8_K, 1 };
    return &traits;
}
int64_t ggml_blck_size(ggml_type) {
    return QK_K;
}
int ggml_cpu_has_avx512(void) {
    return 0;
}
bool specee_has_columns(int, int64_t n_out) {
    return n_out % SPECEE_COLUMNS_ROWS == 0;
}
}

namespace {

using Bytes  = std::vector<uint8_t>;
using VecDot = void (*)(int, float *, size_t, const void *, size_t, const void *, size_t, int);
using Gemv   = void (*)(int, float *, size_t, const void *, const void *, int, int);

struct Case {
    const char *  name;
    int           type;
    specee_layout layout;
    size_t        block, n_halves, half_at; // bytes of a block (of all rows of a group), its half floats and where
    int           block_weights, row_type;
    VecDot        vec_dot;
    Gemv          gemv;
};

template <class T, void (*vec_dot)(int, float *, size_t, T *, size_t, T *, size_t, int)>
void dot_of(int n, float * s, size_t, const void * w, size_t, const void * x, size_t, int) {
    vec_dot(n, s, 0, static_cast<T *>(const_cast<void *>(w)), 0, static_cast<T *>(const_cast<void *>(x)), 0, 1);
}
const VecDot dot_of_f16  = dot_of<ggml_fp16_t, ggml_vec_dot_f16>;
const VecDot dot_of_bf16 = dot_of<ggml_bf16_t, ggml_vec_dot_bf16>;

const Case cases[] = {
    { "Q4_0 rows", GGML_TYPE_Q4_0, SPECEE_ROWS, 18, 1, 0, 32, GGML_TYPE_Q8_0, ggml_vec_dot_q4_0_q8_0, nullptr },
    { "Q4_1 rows", GGML_TYPE_Q4_1, SPECEE_ROWS, 20, 2, 0, 32, GGML_TYPE_Q8_1, ggml_vec_dot_q4_1_q8_1, nullptr },
    { "Q5_0 rows", GGML_TYPE_Q5_0, SPECEE_ROWS, 22, 1, 0, 32, GGML_TYPE_Q8_0, ggml_vec_dot_q5_0_q8_0, nullptr },
    { "Q5_1 rows", GGML_TYPE_Q5_1, SPECEE_ROWS, 24, 2, 0, 32, GGML_TYPE_Q8_1, ggml_vec_dot_q5_1_q8_1, nullptr },
    { "IQ4_NL rows", GGML_TYPE_IQ4_NL, SPECEE_ROWS, 18, 1, 0, 32, GGML_TYPE_Q8_0, ggml_vec_dot_iq4_nl_q8_0, nullptr },
    { "MXFP4 rows", GGML_TYPE_MXFP4, SPECEE_ROWS, 17, 0, 0, 32, GGML_TYPE_Q8_0, ggml_vec_dot_mxfp4_q8_0, nullptr },
    { "Q2_K rows", GGML_TYPE_Q2_K, SPECEE_ROWS, 84, 2, 80, 256, GGML_TYPE_Q8_K, ggml_vec_dot_q2_K_q8_K, nullptr },
    { "Q3_K rows", GGML_TYPE_Q3_K, SPECEE_ROWS, 110, 1, 108, 256, GGML_TYPE_Q8_K, ggml_vec_dot_q3_K_q8_K, nullptr },
    { "IQ4_XS rows", GGML_TYPE_IQ4_XS, SPECEE_ROWS, 136, 1, 0, 256, GGML_TYPE_Q8_K, ggml_vec_dot_iq4_xs_q8_K, nullptr },
    { "F16 rows", GGML_TYPE_F16, SPECEE_ROWS, 64, 32, 0, 32, GGML_TYPE_F16, dot_of_f16, nullptr },
    { "BF16 rows", GGML_TYPE_BF16, SPECEE_ROWS, 64, 32, 0, 32, GGML_TYPE_BF16, dot_of_bf16, nullptr },
    { "Q8_0 rows", GGML_TYPE_Q8_0, SPECEE_ROWS, 34, 1, 0, 32, GGML_TYPE_Q8_0, ggml_vec_dot_q8_0_q8_0, nullptr },
    { "Q4_K rows", GGML_TYPE_Q4_K, SPECEE_ROWS, 144, 2, 0, 256, GGML_TYPE_Q8_K, ggml_vec_dot_q4_K_q8_K, nullptr },
    { "Q5_K rows", GGML_TYPE_Q5_K, SPECEE_ROWS, 176, 2, 0, 256, GGML_TYPE_Q8_K, ggml_vec_dot_q5_K_q8_K, nullptr },
    { "Q6_K rows", GGML_TYPE_Q6_K, SPECEE_ROWS, 210, 1, 208, 256, GGML_TYPE_Q8_K, ggml_vec_dot_q6_K_q8_K, nullptr },
    { "Q2_K columns", GGML_TYPE_Q2_K, SPECEE_COLUMNS, 84, 2, 80, 256, GGML_TYPE_Q8_K, ggml_vec_dot_q2_K_q8_K, nullptr },
    { "Q3_K columns", GGML_TYPE_Q3_K, SPECEE_COLUMNS, 110, 1, 108, 256, GGML_TYPE_Q8_K, ggml_vec_dot_q3_K_q8_K,
      nullptr },
    { "IQ4_XS columns", GGML_TYPE_IQ4_XS, SPECEE_COLUMNS, 136, 1, 0, 256, GGML_TYPE_Q8_K, ggml_vec_dot_iq4_xs_q8_K,
      nullptr },
    { "Q4_0 4x4", GGML_TYPE_Q4_0, SPECEE_REPACKED_4X4, 72, 4, 0, 32, GGML_TYPE_Q8_0, nullptr, ggml_gemv_q4_0_4x4_q8_0 },
    { "Q4_0 4x8", GGML_TYPE_Q4_0, SPECEE_REPACKED_4X8, 72, 4, 0, 32, GGML_TYPE_Q8_0, nullptr, ggml_gemv_q4_0_4x8_q8_0 },
    { "Q8_0 4x4", GGML_TYPE_Q8_0, SPECEE_REPACKED_4X4, 136, 4, 0, 32, GGML_TYPE_Q8_0, nullptr,
      ggml_gemv_q8_0_4x4_q8_0 },
    { "Q8_0 4x8", GGML_TYPE_Q8_0, SPECEE_REPACKED_4X8, 136, 4, 0, 32, GGML_TYPE_Q8_0, nullptr,
      ggml_gemv_q8_0_4x8_q8_0 },
    { "IQ4_NL 4x4", GGML_TYPE_IQ4_NL, SPECEE_REPACKED_4X4, 72, 4, 0, 32, GGML_TYPE_Q8_0, nullptr,
      ggml_gemv_iq4_nl_4x4_q8_0 },
    { "MXFP4 4x4", GGML_TYPE_MXFP4, SPECEE_REPACKED_4X4, 68, 0, 0, 32, GGML_TYPE_Q8_0, nullptr,
      ggml_gemv_mxfp4_4x4_q8_0 },
    { "Q4_K 8x4", GGML_TYPE_Q4_K, SPECEE_REPACKED_8X4, 1152, 16, 0, 256, GGML_TYPE_Q8_K, nullptr,
      ggml_gemv_q4_K_8x4_q8_K },
    { "Q4_K 8x8", GGML_TYPE_Q4_K, SPECEE_REPACKED_8X8, 1152, 16, 0, 256, GGML_TYPE_Q8_K, nullptr,
      ggml_gemv_q4_K_8x8_q8_K },
    { "Q5_K 8x4", GGML_TYPE_Q5_K, SPECEE_REPACKED_8X4, 1408, 16, 0, 256, GGML_TYPE_Q8_K, nullptr,
      ggml_gemv_q5_K_8x4_q8_K },
    { "Q5_K 8x8", GGML_TYPE_Q5_K, SPECEE_REPACKED_8X8, 1408, 16, 0, 256, GGML_TYPE_Q8_K, nullptr,
      ggml_gemv_q5_K_8x8_q8_K },
    { "Q6_K 8x4", GGML_TYPE_Q6_K, SPECEE_REPACKED_8X4, 1680, 8, 0, 256, GGML_TYPE_Q8_K, nullptr,
      ggml_gemv_q6_K_8x4_q8_K },
    { "Q6_K 8x8", GGML_TYPE_Q6_K, SPECEE_REPACKED_8X8, 1680, 8, 0, 256, GGML_TYPE_Q8_K, nullptr,
      ggml_gemv_q6_K_8x8_q8_K },
};

std::mt19937 random_bits(1);

uint16_t random_half() { // +-2^-6 to 2^-3
    return uint16_t((random_bits() & 0x8000) | ((9 + random_bits() % 3) << 10) | (random_bits() & 0x3ff));
}

Bytes random_weights(const Case & c, int64_t n_blocks) {
    Bytes bytes(size_t(n_blocks) * c.block);
    for (auto & byte : bytes) {
        byte = uint8_t(random_bits());
    }
    for (int64_t b = 0; b < n_blocks; ++b) {
        for (size_t i = 0; i < (c.n_halves ? 0 : c.block / 17); ++i) { // exponents of MXFP4
            bytes[size_t(b) * c.block + i] = uint8_t(random_bits() % 8 ? 110 + random_bits() % 20 : random_bits() % 3);
        }
        for (size_t i = 0; i < c.n_halves; ++i) {
            const uint16_t h = random_half();
            std::memcpy(&bytes[size_t(b) * c.block + c.half_at + 2 * i], &h, 2);
        }
    }
    return bytes;
}

// As ggml quantizes activations: numbers from -127 to 127, and the sums that go with them.
template <class Block, int K> Bytes random_row(int64_t n_in) {
    std::vector<Block> blocks(size_t(n_in / K));
    for (auto & b : blocks) {
        std::memset(&b, 0, sizeof b);
        for (int i = 0; i < K; ++i) {
            b.qs[i] = int8_t(int(random_bits() % 255) - 127);
        }
        if constexpr (std::is_same_v<Block, block_q8_K>) {
            b.d = float(random_bits() % 1000 + 1) / 12345.0f;
            for (int i = 0; i < K; ++i) {
                b.bsums[i / 16] = int16_t(b.bsums[i / 16] + b.qs[i]);
            }
        } else {
            b.d = random_half();
        }
        if constexpr (std::is_same_v<Block, block_q8_1>) {
            b.s = random_half();
        }
    }
    Bytes bytes(blocks.size() * sizeof(Block));
    std::memcpy(bytes.data(), blocks.data(), bytes.size());
    return bytes;
}

Bytes random_rows(const Case & c, int64_t n_in, int n, size_t & stride) {
    Bytes all;
    if (c.n_halves == 32) { // F16, BF16
        stride = size_t(n_in) * sizeof(uint16_t);
        return random_weights(c, n * n_in / c.block_weights);
    }
    for (int i = 0; i < n; ++i) {
        const Bytes row = c.row_type == GGML_TYPE_Q8_0   ? random_row<block_q8_0, 32>(n_in)
                          : c.row_type == GGML_TYPE_Q8_1 ? random_row<block_q8_1, 32>(n_in)
                                                         : random_row<block_q8_K, 256>(n_in);
        stride          = row.size();
        all.insert(all.end(), row.begin(), row.end());
    }
    return all;
}

bool compare(const Case & c, int64_t n_in, int64_t n_out, int n) {
    const int   n_group = c.gemv ? c.layout >> 4 : 1;
    const Bytes weights = random_weights(c, n_out / n_group * (n_in / c.block_weights));
    size_t      stride  = 0;
    const Bytes rows    = random_rows(c, n_in, n, stride);
    const auto  out     = size_t(n_out);

    std::vector<float> ours(size_t(n) * (out + 3), 0.0f), theirs(out);
    const size_t       weights_stride = weights.size() / out;
    Bytes              tiles(weights.size());
    const bool         columns = c.layout == SPECEE_COLUMNS;
    if (columns && !specee_pack_columns(c.type, weights.data(), n_in, n_out, tiles.data())) {
        std::printf("%s: not packed\n", c.name);
        return false;
    }
    const void * const   packed  = columns ? tiles.data() : weights.data();
    const specee_product product = { c.type,      c.layout, n_in, packed,      weights_stride, n_out,
                                     rows.data(), stride,   n,    ours.data(), out + 3 };
    if (!specee_small_batch(&product)) {
        std::printf("%s: no kernel\n", c.name);
        return false;
    }
    for (int i = 0; i < n; ++i) {
        const uint8_t * const row = rows.data() + size_t(i) * stride;
        if (c.gemv) {
            c.gemv(int(n_in), theirs.data(), out, weights.data(), row, 1, int(n_out));
        }
        for (size_t j = 0; !c.gemv && j < out; ++j) {
            c.vec_dot(int(n_in), &theirs[j], 0, weights.data() + j * weights_stride, 0, row, 0, 1);
        }
        for (size_t j = 0; j < out; ++j) {
            const float mine = ours[size_t(i) * (out + 3) + j];
            if (std::memcmp(&mine, &theirs[j], sizeof mine) != 0) {
                std::printf("%s: %d rows of %d, row %d: %.9g is not %.9g\n", c.name, n, int(n_in), i, mine, theirs[j]);
                return false;
            }
        }
    }
    return true;
}

} // namespace

int main() {
    bool equal = true;
    for (const Case & c : cases) {
        for (int n = 1; n <= SPECEE_SMALL_BATCH; ++n) {
            for (const int64_t n_in :
                 { 1536, c.block_weights == 32 ? 480 : 256 }) { // an even and an odd number of blocks
                equal = compare(c, n_in, c.layout == SPECEE_COLUMNS ? 32 : 24, n) && equal;
            }
        }
        std::printf("%s\n", c.name);
    }
    return equal ? 0 : 1;
}
