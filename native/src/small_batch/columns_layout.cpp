// Rows as in a file -> tiles of columns.
#include "columns.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"
#include "ggml.h"

#include <cstddef>
#include <cstring>

namespace specee::small_batch {
namespace {

constexpr int n_rows = SPECEE_COLUMNS_ROWS;

// 32 bits of each row, side by side: from `from` of each block to vector number `to` of the tile.
template <class Block> void copy_words(const Block * const * blocks, size_t from, char * vector) {
    for (int r = 0; r < n_rows; ++r) {
        std::memcpy(vector + 4 * r, reinterpret_cast<const char *>(blocks[r]) + from, 4);
    }
}
template <class Block> void copy_halves(const Block * const * blocks, size_t from, char * halves) {
    for (int r = 0; r < n_rows; ++r) {
        std::memcpy(halves + 2 * r, reinterpret_cast<const char *>(blocks[r]) + from, 2);
    }
}

void pack(const block_q4_0 * const * blocks, char * tile) {
    for (size_t v = 0; v < 4; ++v) {
        copy_words(blocks, offsetof(block_q4_0, qs) + 4 * v, tile + 64 * v);
    }
    copy_halves(blocks, offsetof(block_q4_0, d), tile + 256);
}

void pack(const block_q4_1 * const * blocks, char * tile) {
    for (size_t v = 0; v < 4; ++v) {
        copy_words(blocks, offsetof(block_q4_1, qs) + 4 * v, tile + 64 * v);
    }
    copy_halves(blocks, offsetof(block_q4_1, d), tile + 256);
    copy_halves(blocks, offsetof(block_q4_1, m), tile + 288);
}

// Bits of 32 weights: bit 4v + k of a block becomes bit v of byte k.
template <class Block> void pack_fifth_bits(const Block * const * blocks, char * to) {
    for (int r = 0; r < n_rows; ++r) {
        uint32_t bits, bytes = 0;
        std::memcpy(&bits, blocks[r]->qh, sizeof bits);
        for (int v = 0; v < 8; ++v) {
            const uint32_t four = bits >> (4 * v) & 15; // spread over four bytes
            bytes |= (((four * 0x00204081) & 0x01010101) << v);
        }
        std::memcpy(to + 4 * r, &bytes, sizeof bytes);
    }
}

void pack(const block_q5_0 * const * blocks, char * tile) {
    for (size_t v = 0; v < 4; ++v) {
        copy_words(blocks, offsetof(block_q5_0, qs) + 4 * v, tile + 64 * v);
    }
    pack_fifth_bits(blocks, tile + 256);
    copy_halves(blocks, offsetof(block_q5_0, d), tile + 320);
}

void pack(const block_q5_1 * const * blocks, char * tile) {
    for (size_t v = 0; v < 4; ++v) {
        copy_words(blocks, offsetof(block_q5_1, qs) + 4 * v, tile + 64 * v);
    }
    pack_fifth_bits(blocks, tile + 256);
    copy_halves(blocks, offsetof(block_q5_1, d), tile + 320);
    copy_halves(blocks, offsetof(block_q5_1, m), tile + 352);
}

void pack(const block_iq4_nl * const * blocks, char * tile) {
    for (size_t v = 0; v < 4; ++v) {
        copy_words(blocks, offsetof(block_iq4_nl, qs) + 4 * v, tile + 64 * v);
    }
    copy_halves(blocks, offsetof(block_iq4_nl, d), tile + 256);
}

void pack(const block_mxfp4 * const * blocks, char * tile) {
    for (size_t v = 0; v < 4; ++v) {
        copy_words(blocks, offsetof(block_mxfp4, qs) + 4 * v, tile + 64 * v);
    }
    for (int r = 0; r < n_rows; ++r) {
        tile[256 + r] = char(blocks[r]->e);
    }
}

void pack(const block_q8_0 * const * blocks, char * tile) {
    for (size_t v = 0; v < 4; ++v) {
        copy_words(blocks, offsetof(block_q8_0, qs) + 4 * v, tile + 128 * v);
        copy_words(blocks, offsetof(block_q8_0, qs) + 4 * v + 16, tile + 128 * v + 64);
    }
    for (int i = 0; i < 512; ++i) {
        tile[i] = char(uint8_t(tile[i]) ^ 0x80);
    }
    copy_halves(blocks, offsetof(block_q8_0, d), tile + 512);
}

void pack(const block_q6_K * const * blocks, char * tile) {
    for (size_t lane = 0; lane < 8; ++lane) {
        for (size_t half = 0; half < 2; ++half) {
            char * const at = tile + 384 * lane + 192 * half;
            copy_words(blocks, offsetof(block_q6_K, ql) + 64 * half + 4 * lane, at);
            copy_words(blocks, offsetof(block_q6_K, ql) + 64 * half + 32 + 4 * lane, at + 64);
            copy_words(blocks, offsetof(block_q6_K, qh) + 32 * half + 4 * lane, at + 128);
        }
    }
    for (int g = 0; g < 16; ++g) {
        for (int r = 0; r < n_rows; ++r) {
            tile[3072 + 16 * g + r] = blocks[r]->scales[g];
        }
    }
    copy_halves(blocks, offsetof(block_q6_K, d), tile + 3328);
}

template <class Block> void pack_k_scales(const Block * const * blocks, char * to) {
    for (size_t k = 0; k < 3; ++k) {
        copy_words(blocks, offsetof(Block, scales) + 4 * k, to + 64 * k);
    }
    copy_halves(blocks, offsetof(Block, d), to + 192);
    copy_halves(blocks, offsetof(Block, dmin), to + 224);
}

void pack(const block_q4_K * const * blocks, char * tile) {
    for (size_t k = 0; k < 32; ++k) {
        copy_words(blocks, offsetof(block_q4_K, qs) + 4 * k, tile + 64 * k);
    }
    pack_k_scales(blocks, tile + 2048);
}

void pack(const block_q5_K * const * blocks, char * tile) {
    for (size_t lane = 0; lane < 8; ++lane) {
        for (size_t k = 0; k < 4; ++k) {
            copy_words(blocks, offsetof(block_q5_K, qs) + 32 * k + 4 * lane, tile + 320 * lane + 64 * k);
        }
        copy_words(blocks, offsetof(block_q5_K, qh) + 4 * lane, tile + 320 * lane + 256);
    }
    pack_k_scales(blocks, tile + 2560);
}

void pack(const block_q2_K * const * blocks, char * tile) {
    for (size_t k = 0; k < 16; ++k) {
        copy_words(blocks, offsetof(block_q2_K, qs) + 4 * k, tile + 64 * k);
    }
    for (size_t k = 0; k < 4; ++k) {
        copy_words(blocks, offsetof(block_q2_K, scales) + 4 * k, tile + 1024 + 64 * k);
    }
    copy_halves(blocks, offsetof(block_q2_K, d), tile + 1280);
    copy_halves(blocks, offsetof(block_q2_K, dmin), tile + 1312);
}

void pack(const block_q3_K * const * blocks, char * tile) {
    for (size_t lane = 0; lane < 8; ++lane) {
        char * const at = tile + 192 * lane;
        copy_words(blocks, offsetof(block_q3_K, qs) + 4 * lane, at);
        copy_words(blocks, offsetof(block_q3_K, qs) + 32 + 4 * lane, at + 64);
        copy_words(blocks, offsetof(block_q3_K, hmask) + 4 * lane, at + 128);
    }
    for (size_t k = 0; k < 3; ++k) {
        copy_words(blocks, offsetof(block_q3_K, scales) + 4 * k, tile + 1536 + 64 * k);
    }
    copy_halves(blocks, offsetof(block_q3_K, d), tile + 1728);
}

void pack(const block_iq4_xs * const * blocks, char * tile) {
    for (size_t v = 0; v < 4; ++v) {
        for (size_t b = 0; b < 8; ++b) {
            copy_words(blocks, offsetof(block_iq4_xs, qs) + 16 * b + 4 * v, tile + 512 * v + 64 * b);
        }
    }
    copy_words(blocks, offsetof(block_iq4_xs, scales_l), tile + 2048);
    copy_halves(blocks, offsetof(block_iq4_xs, scales_h), tile + 2112);
    copy_halves(blocks, offsetof(block_iq4_xs, d), tile + 2144);
}

template <class Block> void pack_all(const void * rows, int64_t n_blocks, int64_t n_out, void * tiles) {
    auto * tile = static_cast<char *>(tiles);
    for (int64_t r = 0; r < n_out; r += n_rows) {
        const Block * blocks[n_rows];
        for (int64_t b = 0; b < n_blocks; ++b, tile += n_rows * sizeof(Block)) {
            for (int i = 0; i < n_rows; ++i) {
                blocks[i] = static_cast<const Block *>(rows) + (r + i) * n_blocks + b;
            }
            pack(blocks, tile);
        }
    }
}

} // namespace
} // namespace specee::small_batch

bool specee_pack_columns(int type, const void * rows, int64_t n_in, int64_t n_out, void * tiles) {
    using namespace specee::small_batch;
    if (!specee_has_columns(type, n_out)) {
        return false;
    }
    switch (type) {
        case GGML_TYPE_Q4_0: pack_all<block_q4_0>(rows, n_in / QK4_0, n_out, tiles); break;
        case GGML_TYPE_Q4_1: pack_all<block_q4_1>(rows, n_in / QK4_1, n_out, tiles); break;
        case GGML_TYPE_Q5_0: pack_all<block_q5_0>(rows, n_in / QK5_0, n_out, tiles); break;
        case GGML_TYPE_Q5_1: pack_all<block_q5_1>(rows, n_in / QK5_1, n_out, tiles); break;
        case GGML_TYPE_Q8_0: pack_all<block_q8_0>(rows, n_in / QK8_0, n_out, tiles); break;
        case GGML_TYPE_IQ4_NL: pack_all<block_iq4_nl>(rows, n_in / QK4_NL, n_out, tiles); break;
        case GGML_TYPE_MXFP4: pack_all<block_mxfp4>(rows, n_in / QK_MXFP4, n_out, tiles); break;
        case GGML_TYPE_Q2_K: pack_all<block_q2_K>(rows, n_in / QK_K, n_out, tiles); break;
        case GGML_TYPE_Q3_K: pack_all<block_q3_K>(rows, n_in / QK_K, n_out, tiles); break;
        case GGML_TYPE_Q4_K: pack_all<block_q4_K>(rows, n_in / QK_K, n_out, tiles); break;
        case GGML_TYPE_Q5_K: pack_all<block_q5_K>(rows, n_in / QK_K, n_out, tiles); break;
        case GGML_TYPE_Q6_K: pack_all<block_q6_K>(rows, n_in / QK_K, n_out, tiles); break;
        case GGML_TYPE_IQ4_XS: pack_all<block_iq4_xs>(rows, n_in / QK_K, n_out, tiles); break;
        default: return false;
    }
    return true;
}
