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
#if defined(__linux__)
#include <sys/mman.h>
#endif

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

// Rows of activations that a kernel takes at once.
struct Group {
    int64_t      first, n_rows;
    ColumnKernel kernel;
};

// All rows of activations: in groups of 8 or fewer, quantized, and packed as their kernel reads them.
class Activations {
  public:
    explicit Activations(const ggml_tensor * dst) :
        x(dst->src[1]), weights(dst->src[0]->type), quantized(ggml_get_type_traits_cpu(weights)->vec_dot_type),
        n_in(x->ne[0]), n_blocks(n_in / ggml_blck_size(quantized)), row_bytes(ggml_row_size(quantized, n_in)) {
        // ggml takes what is left of fours as single rows where it repacks weights in groups of eight
        const int64_t n     = x->ne[1];
        n_batch             = n <= SPECEE_SMALL_BATCH ? 0 : n - (weights == GGML_TYPE_Q4_K ? n % 4 : 0);
        n_groups            = (n_batch + SPECEE_SMALL_BATCH - 1) / SPECEE_SMALL_BATCH + (n_batch < n);
        const size_t packed = find_columns(weights, SPECEE_SMALL_BATCH, false).packed_block;
        group_bytes         = packed ? packed * size_t(n_in / QK8_0) : row_bytes * SPECEE_SMALL_BATCH;
    }

    int64_t      count() const { return n_groups * x->ne[2] * x->ne[3]; }
    size_t       bytes() const { return size_t(count()) * group_bytes; }
    size_t       stride() const { return row_bytes; }
    const void * at(const void * work, int64_t g) const {
        return static_cast<const char *>(work) + size_t(g) * group_bytes;
    }

    Group group(int64_t g) const {
        const int64_t begin = g % n_groups * SPECEE_SMALL_BATCH;
        const bool    batch = begin < n_batch;
        const int64_t first = batch ? begin : n_batch;
        const int64_t n     = std::min<int64_t>(SPECEE_SMALL_BATCH, (batch ? n_batch : x->ne[1]) - first);
        return { g / n_groups * x->ne[1] + first, n, find_columns(weights, n, batch) };
    }

    // A thread's share of the blocks of all groups.
    void prepare(void * work, int ith, int nth) const {
        const int64_t items = count() * n_blocks, end = items * (ith + 1) / nth;
        for (int64_t item = items * ith / nth; item < end;) {
            const int64_t g = item / n_blocks, begin = item % n_blocks;
            const int64_t n = std::min(n_blocks - begin, end - item);
            prepare(group(g), begin, n, static_cast<char *>(work) + size_t(g) * group_bytes);
            item += n;
        }
    }

  private:
    const float * row(int64_t i) const {
        const int64_t i1 = i % x->ne[1], i2 = i / x->ne[1] % x->ne[2], i3 = i / x->ne[1] / x->ne[2];
        return reinterpret_cast<const float *>(static_cast<const char *>(x->data) + i1 * int64_t(x->nb[1]) +
                                               i2 * int64_t(x->nb[2]) + i3 * int64_t(x->nb[3]));
    }

    void prepare(const Group & group, int64_t begin, int64_t n, char * to) const {
        const auto    from_float = ggml_get_type_traits_cpu(quantized)->from_float;
        const int64_t per_block  = ggml_blck_size(quantized);
        const size_t  block      = row_bytes / size_t(n_blocks);
        const bool    packs      = group.kernel.pack;
        const size_t  stride     = packs ? block * size_t(n) : row_bytes;
        char * const  blocks =
            packs ? static_cast<char *>(scratch(stride * SPECEE_SMALL_BATCH)) : to + block * size_t(begin);
        for (int64_t i = 0; i < group.n_rows; ++i) {
            from_float(row(group.first + i) + begin * per_block, blocks + size_t(i) * stride, n * per_block);
        }
        if (packs) {
            specee_product p = {};
            p.n_in           = n * per_block;
            p.rows           = blocks;
            p.rows_stride    = stride;
            group.kernel.pack(p, to + group.kernel.packed_block * size_t(begin));
        }
    }

    const ggml_tensor * x;
    ggml_type           weights, quantized;
    int64_t             n_in, n_blocks;
    size_t              row_bytes;
    int64_t             n_batch, n_groups; // of rows that meet the kernel for batches; of groups, in a matrix of x
    size_t              group_bytes;
};

void multiply(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * const weights = dst->src[0];
    const Activations         rows(dst);
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth); // each begins with the chunk of its own number
    }
    rows.prepare(params->wdata, params->ith, params->nth);
    ggml_barrier(params->threadpool);

    const int64_t n_out = weights->ne[1], n_tiles = n_out / n_rows, tile_bytes = int64_t(weights->nb[1]) * n_rows;
    int64_t       chunk = params->nth == 1 ? n_tiles : (n_tiles + params->nth * 4 - 1) / (params->nth * 4);
    if (rows.count() > 1) {
        chunk = std::min(chunk, std::max<int64_t>(1, l2_bytes / tile_bytes));
    }
    for (int64_t begin = params->ith * chunk; begin < n_tiles;
         begin         = ggml_threadpool_chunk_add(params->threadpool, 1) * chunk) {
        const int64_t n = std::min(n_tiles, begin + chunk) - begin;
        for (int64_t g = 0; g < rows.count(); ++g) {
            const Group group = rows.group(g);
            group.kernel.multiply({ weights->type, SPECEE_COLUMNS, weights->ne[0],
                                    static_cast<const char *>(weights->data) + begin * tile_bytes, weights->nb[1],
                                    n * n_rows, rows.at(params->wdata, g), rows.stride(), group.n_rows,
                                    static_cast<float *>(dst->data) + group.first * n_out + begin * n_rows,
                                    size_t(n_out) });
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
#if defined(MADV_HUGEPAGE)
        char * const begin = static_cast<char *>(ggml_backend_buffer_get_base(buffer));
        char * const page  = begin + (-reinterpret_cast<uintptr_t>(begin) & 4095);
        madvise(page, size_t(begin + size - page), MADV_HUGEPAGE); // fewer misses when weights stream by
#endif
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
        case GGML_TYPE_Q4_0: pack_all<block_q4_0>(rows, n_in / QK4_0, n_out, tiles); break;
        case GGML_TYPE_Q4_1: pack_all<block_q4_1>(rows, n_in / QK4_1, n_out, tiles); break;
        case GGML_TYPE_Q5_0: pack_all<block_q5_0>(rows, n_in / QK5_0, n_out, tiles); break;
        case GGML_TYPE_Q8_0: pack_all<block_q8_0>(rows, n_in / QK8_0, n_out, tiles); break;
        case GGML_TYPE_Q4_K: pack_all<block_q4_K>(rows, n_in / QK_K, n_out, tiles); break;
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
