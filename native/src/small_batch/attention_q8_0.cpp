// Flash attention over keys and values in q8_0, with the bits of ggml's (ggml_compute_forward_flash_attn_ext_f16): of
// such a cache ggml computes each query alone, cell by cell. Here some queries of the same keys and values (heads of a
// group, rows) go through a few cells together, which are read and unpacked once for all of them; what is computed for
// a query, and in which order, stays as it is. Compiled as ggml is.
#include "small_batch.h"

#include "ggml-cpu.h"
#include "ggml.h"
#include "simd-mappings.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int64_t most_queries = 32;  // at once; their sums fit into the cache of a core
constexpr int64_t n_cells      = 16;  // that are unpacked at once
constexpr int64_t longest      = 256; // numbers of a key or a value
constexpr int64_t in_block     = 32;

struct Block { // block_q8_0
    ggml_fp16_t scale;
    int8_t      values[in_block];
};

struct Query {
    alignas(64) float sum[longest]; // of values
    Block               quantized[longest / in_block];
    const ggml_fp16_t * mask;
    float               largest, total;
};

struct Attention {
    const ggml_tensor *dst, *q, *k, *v, *mask;
    float              scale, cap;
    ggml_vec_dot_t     dot;
    ggml_from_float_t  quantize;
    int64_t            n_groups, in_group; // queries that share keys and values
};

const char * at(const ggml_tensor * t, int64_t i1, int64_t i2, int64_t i3) {
    return static_cast<const char *>(t->data) + i1 * int64_t(t->nb[1]) + i2 * int64_t(t->nb[2]) +
           i3 * int64_t(t->nb[3]);
}

// Where the i-th query of a group is in q: row, head, sample.
struct Place {
    int64_t row, head, sample;
};

Place place(const Attention & a, int64_t group, int64_t i) {
    const int64_t heads = a.q->ne[2] / a.k->ne[2], rows = a.q->ne[1];
    const bool    shared = a.k->ne[3] == 1 || a.k->nb[3] == 0; // all samples have the same keys
    const int64_t of_k   = group / a.k->ne[2];
    const int64_t sample = i / (heads * rows);
    return { i % rows, group % a.k->ne[2] * heads + i / rows % heads,
             shared ? sample : of_k * (a.q->ne[3] / a.k->ne[3]) + sample };
}

void unpack(const Block * from, float * to, int64_t n) {
    for (int64_t i = 0; i < n / in_block; ++i) {
        const float scale = GGML_CPU_FP16_TO_FP32(from[i].scale);
        for (int64_t j = 0; j < in_block; ++j) {
            to[i * in_block + j] = float(from[i].values[j]) * scale;
        }
    }
}

// The values of some cells, each times its weight, after scaling what there is where a cell has a new maximum.
#if defined(__GNUC__)
template <int N>
void add(float * sum, const float * values, const float * weights, const float * scales, const bool * seen, int64_t n) {
    typedef float vector __attribute__((vector_size(64), aligned(64)));
    constexpr int n_vectors = N / 16;
    vector        acc[n_vectors];
    std::memcpy(acc, sum, sizeof(acc));
    for (int64_t cell = 0; cell < n; ++cell) {
        if (!seen[cell]) {
            continue;
        }
        const vector * const from = reinterpret_cast<const vector *>(values + cell * N);
        if (scales[cell] != 1.0f) {
            for (int i = 0; i < n_vectors; ++i) {
                acc[i] *= scales[cell];
            }
        }
        for (int i = 0; i < n_vectors; ++i) {
            acc[i] += from[i] * weights[cell];
        }
    }
    std::memcpy(sum, acc, sizeof(acc));
}
#endif

void add_any(float * sum, const float * values, const float * weights, const float * scales, const bool * seen,
             int64_t n, int64_t length) {
    for (int64_t cell = 0; cell < n; ++cell) {
        for (int64_t i = 0; seen[cell] && i < length; ++i) {
            sum[i] *= scales[cell];
        }
        for (int64_t i = 0; seen[cell] && i < length; ++i) {
            sum[i] += values[cell * length + i] * weights[cell];
        }
    }
}

// One query and some cells, as ggml goes through them.
void attend(const Attention & a, Query & query, const char * keys, const float * values, int64_t first, int64_t n) {
    float weights[n_cells], scales[n_cells];
    bool  seen[n_cells];
    bool  any = false;
    for (int64_t cell = 0; cell < n; ++cell) {
        const float hidden = query.mask == nullptr ? 0.0f : GGML_CPU_FP16_TO_FP32(query.mask[first + cell]);
        seen[cell]         = hidden != -INFINITY;
        if (!seen[cell]) {
            continue;
        }
        float s;
        a.dot(int(a.k->ne[0]), &s, 0, keys + cell * int64_t(a.k->nb[1]), 0, query.quantized, 0, 1);
        s = s * a.scale;
        if (a.cap != 0.0f) {
            s = a.cap * tanhf(s);
        }
        s += hidden;
        const float before = query.largest;
        float       ms = 1.0f, vs = 1.0f;
        if (s > query.largest) {
            query.largest = s;
            ms            = expf(before - s);
        } else {
            vs = expf(s - query.largest);
        }
        query.total   = query.total * ms + vs;
        weights[cell] = vs;
        scales[cell]  = ms;
        any           = true;
    }
    if (!any) {
        return;
    }
    switch (a.v->ne[0]) {
#if defined(__GNUC__)
        case 64: return add<64>(query.sum, values, weights, scales, seen, n);
        case 128: return add<128>(query.sum, values, weights, scales, seen, n);
#endif
        default: return add_any(query.sum, values, weights, scales, seen, n, a.v->ne[0]);
    }
}

void begin(const Attention & a, Query & query, Place p) {
    std::fill_n(query.sum, a.v->ne[0], 0.0f);
    query.largest = -INFINITY;
    query.total   = 0.0f;
    a.quantize(reinterpret_cast<const float *>(at(a.q, p.row, p.head, p.sample)), query.quantized, a.k->ne[0]);
    query.mask = a.mask == nullptr ? nullptr
                                   : reinterpret_cast<const ggml_fp16_t *>(
                                         at(a.mask, p.row, p.head % a.mask->ne[2], p.sample % a.mask->ne[3]));
}

void end(const Attention & a, Query & query, Place p) {
    if (const ggml_tensor * sinks = a.dst->src[4]) {
        const float s  = static_cast<const float *>(sinks->data)[p.head];
        float       ms = 1.0f, vs = 1.0f;
        if (s > query.largest) {
            ms = expf(query.largest - s);
            for (int64_t i = 0; i < a.v->ne[0]; ++i) {
                query.sum[i] *= ms;
            }
        } else {
            vs = expf(s - query.largest);
        }
        query.total = query.total * ms + vs;
    }
    const float   inverse = query.total == 0.0f ? 0.0f : 1.0f / query.total;
    const int64_t n_rows = a.dst->ne[2], n_heads = a.dst->ne[1];
    auto * const  out =
        reinterpret_cast<float *>(static_cast<char *>(a.dst->data) +
                                  (p.sample * n_rows * n_heads + p.head + p.row * n_heads) * int64_t(a.dst->nb[1]));
    for (int64_t i = 0; i < a.v->ne[0]; ++i) {
        out[i] = query.sum[i] * inverse;
    }
}

// Queries `from` to `to` of a group, most_queries at most.
void attend_some(const Attention & a, int64_t group, int64_t from, int64_t to) {
    Query             queries[most_queries];
    alignas(64) float values[n_cells * longest];
    const int64_t     head = group % a.k->ne[2], sample = group / a.k->ne[2];
    for (int64_t i = from; i < to; ++i) {
        begin(a, queries[i - from], place(a, group, i));
    }
    for (int64_t first = 0; first < a.k->ne[1]; first += n_cells) {
        const int64_t n = std::min(n_cells, a.k->ne[1] - first);
        // cells that no query sees, as after a prompt's part
        const bool any = std::any_of(queries, queries + (to - from), [&](const Query & query) {
            return query.mask == nullptr ||
                   std::any_of(query.mask + first, query.mask + first + n, [](ggml_fp16_t x) { return x != 0xfc00; });
        });
        if (!any) {
            continue;
        }
        for (int64_t cell = 0; cell < n; ++cell) {
            unpack(reinterpret_cast<const Block *>(at(a.v, first + cell, head, sample)), values + cell * a.v->ne[0],
                   a.v->ne[0]);
        }
        for (int64_t i = from; i < to; ++i) {
            attend(a, queries[i - from], at(a.k, first, head, sample), values, first, n);
        }
    }
    for (int64_t i = from; i < to; ++i) {
        end(a, queries[i - from], place(a, group, i));
    }
}

} // namespace

bool specee_attention_q8_0(const struct ggml_tensor * dst, int thread, int n_threads) {
    static const bool is_off = [] { // as in small_batch.cpp
        const char * const wanted = std::getenv("SPECEE_KERNELS");
        return wanted != nullptr && std::strcmp(wanted, "none") == 0;
    }();
    if (is_off) {
        return false;
    }
    Attention a{};
    a.dst = dst, a.q = dst->src[0], a.k = dst->src[1], a.v = dst->src[2], a.mask = dst->src[3];
    float bias;
    std::memcpy(&a.scale, dst->op_params, sizeof(float));
    std::memcpy(&bias, dst->op_params + 1, sizeof(float));
    std::memcpy(&a.cap, dst->op_params + 2, sizeof(float));
    const bool shared = a.k->ne[3] == 1 || (a.k->nb[3] == 0 && a.v->nb[3] == 0);
    if (a.k->type != GGML_TYPE_Q8_0 || a.v->type != GGML_TYPE_Q8_0 || a.q->type != GGML_TYPE_F32 || bias != 0.0f ||
        a.k->ne[0] > longest || a.v->ne[0] > longest || a.k->ne[2] != a.v->ne[2] || a.k->ne[3] != a.v->ne[3] ||
        (!shared && (a.k->nb[3] == 0 || a.v->nb[3] == 0)) || (a.mask != nullptr && a.mask->type != GGML_TYPE_F16)) {
        return false;
    }
    if (a.cap != 0.0f) {
        a.scale /= a.cap;
    }
    const ggml_type_traits_cpu * const traits = ggml_get_type_traits_cpu(GGML_TYPE_Q8_0);
    a.dot                                     = traits->vec_dot;
    a.quantize                                = traits->from_float;
    a.n_groups                                = a.k->ne[2] * (shared ? 1 : a.k->ne[3]);
    const int64_t total                       = a.q->ne[1] * a.q->ne[2] * a.q->ne[3];
    a.in_group                                = total / a.n_groups;
    // parts alike in size, as many for each thread
    const int64_t rounds = (total + n_threads * most_queries - 1) / (n_threads * most_queries);
    const int64_t size   = (total + n_threads * rounds - 1) / (n_threads * rounds);
    for (int64_t part = thread * size; part < total; part += n_threads * size) {
        const int64_t stop = std::min(part + size, total);
        for (int64_t i = part; i < stop;) {
            const int64_t group = i / a.in_group;
            const int64_t next  = std::min(stop, (group + 1) * a.in_group);
            attend_some(a, group, i - group * a.in_group, next - group * a.in_group);
            i = next;
        }
    }
    return true;
}
