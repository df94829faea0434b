#include "columns.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "traits.h"
#include "variants.h"

#include <algorithm>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace specee::small_batch {
namespace {

constexpr int64_t n_rows = SPECEE_COLUMNS_ROWS;

inline void fetch(const char * from) {
#if defined(__GNUC__)
    __builtin_prefetch(from);
#else
    (void) from; // compilers without kernels for columns
#endif
}

// ---- a product of ggml's -------------------------------------------------------------------------------------------

constexpr int64_t l2_bytes    = 256 << 10; // of weights that several groups of rows meet one after the other
constexpr int64_t first_bytes = 8192;      // fetched before the activations are ready

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
        n_in(x->ne[0]), n_blocks(n_in / ggml_blck_size(quantized)) {
        // ggml takes what is left of fours as single rows where it repacks weights in groups of eight
        const int64_t n      = x->ne[1];
        const bool    groups = ggml_blck_size(weights) == 256 && is_repacked(weights);
        n_batch              = n <= SPECEE_SMALL_BATCH ? 0 : n - (groups ? n % 4 : 0);
        n_groups             = (n_batch + SPECEE_SMALL_BATCH - 1) / SPECEE_SMALL_BATCH + (n_batch < n);
        group_size           = std::min<int64_t>(SPECEE_SMALL_BATCH, n);
        group_bytes          = find_columns(weights, SPECEE_SMALL_BATCH, false).packed_block * size_t(n_blocks);
    }

    int64_t count() const { return n_groups * x->ne[2] * x->ne[3]; }
    // Of work memory: all groups, and for each thread a group's blocks before they are packed.
    size_t       bytes(int nth) const { return size_t(count()) * group_bytes + size_t(nth) * thread_bytes(); }
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
        char *const to = static_cast<char *>(work), *const blocks = to + bytes(ith);
        for (int64_t item = items * ith / nth; item < end;) {
            const int64_t g = item / n_blocks, begin = item % n_blocks;
            const int64_t n = std::min(n_blocks - begin, end - item);
            prepare(group(g), begin, n, blocks, to + size_t(g) * group_bytes);
            item += n;
        }
    }

  private:
    const float * row(int64_t i) const {
        const int64_t i1 = i % x->ne[1], i2 = i / x->ne[1] % x->ne[2], i3 = i / x->ne[1] / x->ne[2];
        return reinterpret_cast<const float *>(static_cast<const char *>(x->data) + i1 * int64_t(x->nb[1]) +
                                               i2 * int64_t(x->nb[2]) + i3 * int64_t(x->nb[3]));
    }

    size_t thread_bytes() const { return GGML_PAD(ggml_row_size(quantized, n_in) * size_t(group_size), 64); }

    void prepare(const Group & group, int64_t begin, int64_t n, char * blocks, char * to) const {
        const auto     from_float = ggml_get_type_traits_cpu(quantized)->from_float;
        const int64_t  per_block  = ggml_blck_size(quantized);
        specee_product p          = {};
        p.n_in                    = n * per_block;
        p.rows_stride             = ggml_row_size(quantized, p.n_in);
        p.n_rows                  = group.n_rows;
        for (int64_t i = 0; i < group.n_rows; ++i) {
            from_float(row(group.first + i) + begin * per_block, blocks + size_t(i) * p.rows_stride, p.n_in);
        }
        p.rows = blocks;
        group.kernel.pack(p, to + group.kernel.packed_block * size_t(begin));
    }

    const ggml_tensor * x;
    ggml_type           weights, quantized;
    int64_t             n_in, n_blocks;
    int64_t             group_size;        // rows of the largest one
    int64_t             n_batch, n_groups; // of rows that meet the kernel for batches; of groups, in a matrix of x
    size_t              group_bytes;
};

// How threads share rows of tiles. Where one group of rows meets all weights, each thread first takes most of its share
// at once, because memory is read ahead within a run only; the rest evens out what they differ by.
struct Runs {
    int64_t n_tiles, n_threads, first, rest;

    Runs(int64_t tiles, int64_t tile_bytes, int64_t groups, int64_t threads) : n_tiles(tiles), n_threads(threads) {
        const int64_t share = n_tiles / n_threads;
        if (groups > 1) {
            first = rest = std::clamp<int64_t>(l2_bytes / tile_bytes, 1, share / 4 + 1);
        } else {
            first = n_threads > 1 ? share - share / 4 : n_tiles;
            rest  = (n_tiles - n_threads * first) / (2 * n_threads) + 1;
        }
    }
    int64_t begin(int64_t run) const {
        return run < n_threads ? run * first : n_threads * first + (run - n_threads) * rest;
    }
    int64_t end(int64_t run) const { return std::min(n_tiles, begin(run + 1)); }
};

void multiply(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * const weights = dst->src[0];
    const int64_t             n_out = weights->ne[1], tile_bytes = int64_t(weights->nb[1]) * n_rows;
    const auto        tile_at = [&](int64_t r) { return static_cast<const char *>(weights->data) + r * tile_bytes; };
    const Activations rows(dst);
    const Runs        runs(n_out / n_rows, tile_bytes, rows.count(), params->nth);
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth); // each begins with the run of its own number
    }
    if (runs.begin(params->ith) < runs.n_tiles) { // comes while the activations are made ready
        for (int64_t at = 0; at < std::min(tile_bytes, first_bytes); at += 64) {
            fetch(tile_at(runs.begin(params->ith)) + at);
        }
    }
    rows.prepare(params->wdata, params->ith, params->nth);
    ggml_barrier(params->threadpool);

    for (int64_t run = params->ith; runs.begin(run) < runs.n_tiles;
         run         = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t begin = runs.begin(run), n = runs.end(run) - begin;
        for (int64_t g = 0; g < rows.count(); ++g) {
            const Group group = rows.group(g);
            group.kernel.multiply({ weights->type, SPECEE_COLUMNS, weights->ne[0], tile_at(begin), weights->nb[1],
                                    n * n_rows, rows.at(params->wdata, g), 0, group.n_rows,
                                    static_cast<float *>(dst->data) + group.first * n_out + begin * n_rows,
                                    size_t(n_out) });
        }
    }
}

// ---- the buffer type -----------------------------------------------------------------------------------------------

class Traits : public ggml::cpu::tensor_traits {
    bool work_size(int nth, const ggml_tensor * op, size_t & size) override {
        size = Activations(op).bytes(nth);
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
               specee_has_columns(op->src[0]->type, op->src[0]->ne[1]);
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

bool specee_has_columns(int type, int64_t n_out) {
    return n_out % SPECEE_COLUMNS_ROWS == 0 && specee::small_batch::find_columns(type, 1, false).multiply;
}

ggml_backend_buffer_type * specee_columns_buffer_type() {
    using namespace specee::small_batch;
    if (!has_columns()) {
        return nullptr;
    }
    static ggml_backend_buffer_type type = {
        { get_name, alloc_buffer, get_alignment, nullptr, nullptr, nullptr },
        ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        new Columns,
    };
    return &type;
}
