#include "columns.h"

#define GGML_COMMON_DECL_C
#include "ggml-backend-impl.h"
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "traits.h"
#include "variants.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace specee::small_batch {
namespace {

constexpr int n_rows = 16; // of a tile

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

void pack(const block_q4_1 * const * blocks, char * tile) {
    for (size_t v = 0; v < 4; ++v) {
        copy_words(blocks, offsetof(block_q4_1, qs) + 4 * v, tile + 64 * v);
    }
    copy_halves(blocks, offsetof(block_q4_1, d), tile + 256);
    copy_halves(blocks, offsetof(block_q4_1, m), tile + 288);
}

void pack(const block_q5_0 * const * blocks, char * tile) {
    for (size_t v = 0; v < 4; ++v) {
        copy_words(blocks, offsetof(block_q5_0, qs) + 4 * v, tile + 64 * v);
    }
    for (int r = 0; r < n_rows; ++r) { // bit 4v + k of a block: bit v of byte k
        uint32_t bits, bytes = 0;
        std::memcpy(&bits, blocks[r]->qh, sizeof bits);
        for (int v = 0; v < 8; ++v) {
            const uint32_t four = bits >> (4 * v) & 15; // spread over four bytes
            bytes |= (((four * 0x00204081) & 0x01010101) << v);
        }
        std::memcpy(tile + 256 + 4 * r, &bytes, sizeof bytes);
    }
    copy_halves(blocks, offsetof(block_q5_0, d), tile + 320);
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

void pack(const block_q5_K * const * blocks, char * tile) {
    for (size_t lane = 0; lane < 8; ++lane) {
        for (size_t k = 0; k < 4; ++k) {
            copy_words(blocks, offsetof(block_q5_K, qs) + 32 * k + 4 * lane, tile + 320 * lane + 64 * k);
        }
        copy_words(blocks, offsetof(block_q5_K, qh) + 4 * lane, tile + 320 * lane + 256);
    }
    for (size_t k = 0; k < 3; ++k) {
        copy_words(blocks, offsetof(block_q5_K, scales) + 4 * k, tile + 2560 + 64 * k);
    }
    copy_halves(blocks, offsetof(block_q5_K, d), tile + 2752);
    copy_halves(blocks, offsetof(block_q5_K, dmin), tile + 2784);
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

bool has_columns(int type, int64_t n_out) {
    return n_out % n_rows == 0 && find_columns(type, 1, false).multiply;
}

// ---- a product of ggml's -------------------------------------------------------------------------------------------

constexpr int64_t l2_bytes = 256 << 10; // of weights that several groups of rows meet one after the other

// Rows of activations in groups of 8 (the last one smaller), each quantized and packed as its kernel reads it.
struct Activations {
    const ggml_tensor * x;
    int                 type; // of the weights
    int64_t             n_in, n_all;
    bool                as_batch;
    ggml_type           quantized;

    explicit Activations(const ggml_tensor * dst) :
        x(dst->src[1]), type(dst->src[0]->type), n_in(x->ne[0]), n_all(ggml_nrows(x)),
        as_batch(x->ne[1] > SPECEE_SMALL_BATCH), quantized(ggml_get_type_traits_cpu(dst->src[0]->type)->vec_dot_type) {}

    int64_t groups() const { return (n_all + SPECEE_SMALL_BATCH - 1) / SPECEE_SMALL_BATCH; }
    int64_t rows_of(int64_t group) const {
        return std::min<int64_t>(SPECEE_SMALL_BATCH, n_all - group * SPECEE_SMALL_BATCH);
    }
    ColumnKernel kernel(int64_t group) const { return find_columns(type, rows_of(group), as_batch); }
    size_t       row_bytes() const { return ggml_row_size(quantized, n_in); }
    size_t       group_bytes(int64_t group) const {
        const size_t packed = kernel(group).packed_block;
        return packed ? packed * size_t(n_in / QK8_0) : row_bytes() * size_t(rows_of(group));
    }
    size_t bytes() const { return size_t(groups() - 1) * group_bytes(0) + group_bytes(groups() - 1); }
    char * at(void * work, int64_t group) const { return static_cast<char *>(work) + size_t(group) * group_bytes(0); }

    const float * row(int64_t i) const {
        const int64_t i1 = i % x->ne[1], i2 = i / x->ne[1] % x->ne[2], i3 = i / x->ne[1] / x->ne[2];
        return reinterpret_cast<const float *>(static_cast<const char *>(x->data) + i1 * x->nb[1] + i2 * x->nb[2] +
                                               i3 * x->nb[3]);
    }

    // A thread's share: of each group some of the blocks.
    void prepare(void * work, int ith, int nth) const {
        const auto    from_float = ggml_get_type_traits_cpu(quantized)->from_float;
        const int64_t n_blocks = n_in / ggml_blck_size(quantized), items = groups() * n_blocks;
        for (int64_t item = items * ith / nth, end = items * (ith + 1) / nth; item < end;) {
            const int64_t      group = item / n_blocks, begin = item % n_blocks;
            const int64_t      n = std::min(n_blocks - begin, end - item), first = begin * ggml_blck_size(quantized);
            const size_t       offset  = ggml_row_size(quantized, first),
                               bytes   = ggml_row_size(quantized, n_in) / size_t(n_blocks) * size_t(n);
            const ColumnKernel columns = kernel(group);
            char * const       to =
                columns.pack ? static_cast<char *>(scratch(bytes * SPECEE_SMALL_BATCH)) : at(work, group) + offset;
            const size_t stride = columns.pack ? bytes : row_bytes();
            for (int64_t i = 0; i < rows_of(group); ++i) {
                from_float(row(group * SPECEE_SMALL_BATCH + i) + first, to + size_t(i) * stride,
                           n * ggml_blck_size(quantized));
            }
            if (columns.pack) {
                specee_product p = {};
                p.n_in           = n * ggml_blck_size(quantized);
                p.rows           = to;
                p.rows_stride    = stride;
                columns.pack(p, at(work, group) + columns.packed_block * size_t(begin));
            }
            item += n;
        }
    }
};

void multiply(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * const weights = dst->src[0];
    const Activations         rows(dst);
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth); // each begins with the chunk of its own number
    }
    rows.prepare(params->wdata, params->ith, params->nth);
    ggml_barrier(params->threadpool);

    const int64_t n_tiles = weights->ne[1] / n_rows, tile_bytes = int64_t(weights->nb[1]) * n_rows;
    const int64_t share    = (n_tiles + params->nth * 4 - 1) / (params->nth * 4);
    const int64_t in_cache = std::max<int64_t>(1, l2_bytes / tile_bytes);
    const int64_t chunk    = params->nth == 1 && rows.groups() == 1 ? n_tiles
                             : rows.groups() == 1                   ? share
                                                                    : std::min(share, in_cache);
    for (int64_t begin = params->ith * chunk; begin < n_tiles;
         begin         = ggml_threadpool_chunk_add(params->threadpool, 1) * chunk) {
        for (int64_t group = 0; group < rows.groups(); ++group) {
            const specee_product product = { weights->type,
                                             SPECEE_COLUMNS,
                                             rows.n_in,
                                             static_cast<const char *>(weights->data) + begin * tile_bytes,
                                             weights->nb[1],
                                             (std::min(n_tiles, begin + chunk) - begin) * n_rows,
                                             rows.at(params->wdata, group),
                                             rows.row_bytes(),
                                             rows.rows_of(group),
                                             static_cast<float *>(dst->data) +
                                                 group * SPECEE_SMALL_BATCH * weights->ne[1] + begin * n_rows,
                                             size_t(weights->ne[1]) };
            rows.kernel(group).multiply(product);
        }
    }
}

// ---- the buffer type -----------------------------------------------------------------------------------------------

class Traits : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        size = Activations(op).bytes();
        return true;
    }
    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        multiply(params, op);
        return true;
    }
};
Traits traits;

class Columns : public ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        if (op->op != GGML_OP_MUL_MAT || !is_ours(op->src[0]) || op->src[1]->type != GGML_TYPE_F32) {
            return false;
        }
        const ggml_tensor * const x       = op->src[1];
        const bool                on_host = !x->buffer || ggml_backend_buft_is_host(x->buffer->buft);
        return on_host && ggml_n_dims(op->src[0]) == 2 && x->nb[0] == sizeof(float) && ggml_is_contiguous(op) &&
               has_columns(op->src[0]->type, op->src[0]->ne[1]);
    }
    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        return op->op == GGML_OP_MUL_MAT && is_ours(op->src[0]) ? &traits : nullptr;
    }
    static bool is_ours(const ggml_tensor * weights) {
        return weights->buffer && weights->buffer->buft == specee_columns_buffer_type();
    }
};

ggml_status init_tensor(ggml_backend_buffer_t, ggml_tensor * tensor) {
    tensor->extra = &traits; // other code sees that these are not rows as in the file
    return GGML_STATUS_SUCCESS;
}

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor));
    const bool packed = specee_pack_columns(tensor->type, data, tensor->ne[0], tensor->ne[1], tensor->data);
    GGML_ASSERT(packed);
}

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        buffer->buft              = type;
        buffer->iface.init_tensor = init_tensor;
        buffer->iface.set_tensor  = set_tensor;
        buffer->iface.get_tensor  = nullptr; // as ggml's own: nobody reads weights back
        buffer->iface.cpy_tensor  = nullptr;
    }
    return buffer;
}

const char * get_name(ggml_backend_buffer_type_t) {
    return "CPU_COLUMNS";
}

size_t get_alignment(ggml_backend_buffer_type_t) {
    return 64;
}

} // namespace
} // namespace specee::small_batch

bool specee_pack_columns(int type, const void * rows, int64_t n_in, int64_t n_out, void * tiles) {
    using namespace specee::small_batch;
    if (!has_columns(type, n_out)) {
        return false;
    }
    switch (type) {
        case GGML_TYPE_Q4_1: pack_all<block_q4_1>(rows, n_in / QK4_1, n_out, tiles); break;
        case GGML_TYPE_Q5_0: pack_all<block_q5_0>(rows, n_in / QK5_0, n_out, tiles); break;
        case GGML_TYPE_Q8_0: pack_all<block_q8_0>(rows, n_in / QK8_0, n_out, tiles); break;
        case GGML_TYPE_Q5_K: pack_all<block_q5_K>(rows, n_in / QK_K, n_out, tiles); break;
        case GGML_TYPE_Q6_K: pack_all<block_q6_K>(rows, n_in / QK_K, n_out, tiles); break;
        default: return false;
    }
    return true;
}

ggml_backend_buffer_type * specee_columns_buffer_type() {
    using namespace specee::small_batch;
    static ggml_backend_buffer_type type = {
        { get_name, alloc_buffer, get_alignment, nullptr, nullptr, nullptr },
        ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        new Columns,
    };
    return has_columns(GGML_TYPE_Q8_0, n_rows) ? &type : nullptr;
}
