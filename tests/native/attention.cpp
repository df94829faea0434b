// Our operation for attention against ggml's operations, bit for bit; with a number as argument: their
// processor times on one thread, of that many cells.
//
// Prints a line for each shape that differs, and "equal N" at the end. With "memory" as argument: computes where no more
// memory can be had, and prints "computed". Built and run by test_attention.py.
#include "small_batch/attention.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "normal_numbers.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <vector>
#if defined(__linux__)
#include <sys/resource.h>
#include <unistd.h>
#endif

static constexpr int n_threads = 2;

struct shape {
    int  d, d_v, n_heads_kv, n_sharing, n_rows, n_streams, n_cells, size; // size: of the cache, in cells
    char mask;                                                            // causal, window, tree
    bool sinks;
};

static ggml_tensor * tensor(ggml_context * ctx, ggml_type type, std::vector<int64_t> ne) {
    return ggml_new_tensor(ctx, type, int(ne.size()), ne.data());
}

static void fill(ggml_tensor * t, int seed, float size) {
    normal_numbers     normal(seed);
    std::vector<float> values(ggml_nelements(t));
    for (float & x : values) {
        x = size * normal();
    }
    if (t->type == GGML_TYPE_F16) {
        ggml_cpu_fp32_to_fp16(values.data(), static_cast<ggml_fp16_t *>(t->data), int64_t(values.size()));
    } else {
        memcpy(t->data, values.data(), ggml_nbytes(t));
    }
}

struct attention {
    ggml_context_ptr ctx;
    ggml_tensor *    ours;
    ggml_tensor *    theirs;
    ggml_cgraph *    graphs[2];

    attention(const shape & s, specee_attention_op_t op) :
        ctx(ggml_init({ size_t(s.n_cells > 1024 ? 1 << 30 : 1 << 27), nullptr, false })) {
        ggml_context * c       = ctx.get();
        const int      heads   = s.n_heads_kv * s.n_sharing;
        ggml_tensor *  q       = tensor(c, GGML_TYPE_F32, { s.d, heads, s.n_rows * s.n_streams });
        ggml_tensor *  cache_k = tensor(c, GGML_TYPE_F16, { s.d, s.n_heads_kv, s.size, s.n_streams });
        ggml_tensor *  cache_v = tensor(c, GGML_TYPE_F16, { s.size, s.d_v, s.n_heads_kv, s.n_streams });
        ggml_tensor *  mask    = tensor(c, GGML_TYPE_F32, { s.n_cells, s.n_rows, 1, s.n_streams });
        ggml_tensor *  sinks   = s.sinks ? tensor(c, GGML_TYPE_F32, { heads }) : nullptr;
        fill(q, 1, 1.0f), fill(cache_k, 2, 1.0f), fill(cache_v, 3, 1.0f);
        if (sinks != nullptr) {
            fill(sinks, 4, 2.0f);
        }
        std::mt19937 random(5);
        auto *       m = static_cast<float *>(mask->data);
        for (int i = 0; i < s.n_rows * s.n_streams; ++i) {
            const int end = s.n_cells - s.n_rows - 7 % s.n_cells + i % s.n_rows; // cells before and with this row
            for (int cell = 0; cell < s.n_cells; ++cell) {
                const bool sees = s.mask == 'w'   ? cell <= end && cell > end - 100
                                  : s.mask == 't' ? cell < end - s.n_rows || cell == end || (cell < end && random() % 2)
                                                  : cell <= end;
                *m++            = sees || cell == std::max(0, end) ? 0.0f : -INFINITY;
            }
        }
        ggml_tensor * k     = ggml_view_4d(c, cache_k, s.d, s.n_heads_kv, s.n_cells, s.n_streams, cache_k->nb[1],
                                           cache_k->nb[2], cache_k->nb[3], 0);
        ggml_tensor * v     = ggml_view_4d(c, cache_v, s.n_cells, s.n_heads_kv, s.d_v, s.n_streams, cache_v->nb[2],
                                           cache_v->nb[1], cache_v->nb[3], 0);
        const float   scale = 1.0f / std::sqrt(float(s.d));
        // as in llm_graph_context::build_attn_mha
        ggml_tensor * q4 =
            ggml_view_4d(c, q, s.d, heads, s.n_rows, s.n_streams, q->nb[1], q->nb[2], q->nb[2] * s.n_rows, 0);
        ggml_tensor * kq = ggml_mul_mat(c, ggml_permute(c, k, 0, 2, 1, 3), ggml_permute(c, q4, 0, 2, 1, 3));
        kq               = ggml_soft_max_ext(c, kq, mask, scale, 0.0f);
        ggml_soft_max_add_sinks(kq, sinks);
        ggml_tensor * kqv = ggml_permute(c, ggml_mul_mat(c, ggml_permute(c, v, 0, 2, 1, 3), kq), 0, 2, 1, 3);
        theirs            = ggml_cont_2d(c, kqv, s.d_v * heads, s.n_rows * s.n_streams);
        const specee_attention_tensors a = { q, k, v, mask, sinks, scale, n_threads };
        ours                             = op(c, &a);
        int at                           = 0;
        for (ggml_tensor * result : { ours, theirs }) {
            graphs[at] = ggml_new_graph(c);
            if (result != nullptr) {
                ggml_build_forward_expand(graphs[at], result);
            }
            ++at;
        }
    }

    double seconds(ggml_backend_t backend, int which) {
        const std::clock_t begin = std::clock(); // of the process: neighbours do not count
        ggml_backend_graph_compute(backend, graphs[which]);
        return double(std::clock() - begin) / CLOCKS_PER_SEC;
    }
};

static int check(ggml_backend_t backend, specee_attention_op_t op) {
    int        n_equal = 0, n_bad = 0;
    const auto one = [&](const shape & s) {
        attention a(s, op);
        if (a.ours == nullptr) {
            return false;
        }
        a.seconds(backend, 0), a.seconds(backend, 1);
        if (memcmp(a.ours->data, a.theirs->data, ggml_nbytes(a.theirs)) == 0) {
            ++n_equal;
        } else {
            ++n_bad;
            printf("differs: d %d %d heads %d x %d rows %d streams %d cells %d mask %c sinks %d\n", s.d, s.d_v,
                   s.n_heads_kv, s.n_sharing, s.n_rows, s.n_streams, s.n_cells, s.mask, s.sinks);
        }
        return true;
    };
    for (const int d : { 32, 64, 80, 96, 112, 128, 160, 192, 256 }) {
        for (const int n_rows : { 1, 2, 3, 5, 8, 9, 10, 16, 33, 70 }) {
            for (const char mask : { 'c', 'w', 't' }) {
                const int cells = mask == 'c' ? 256 : mask == 'w' ? 576 : 320;
                one({ d, d, 2, 3, n_rows, 1, cells, 640, mask, n_rows % 2 == 0 });
            }
        }
    }
    for (const int n_sharing : { 1, 2, 4, 5, 7, 8, 16 }) {
        for (const int n_rows : { 1, 2, 4, 7, 9, 12, 20 }) {
            one({ 64, 64, 3, n_sharing, n_rows, 2, 256, 512, 'c', false });
        }
    }
    for (const int n_rows : { 1, 3, 8, 11 }) {
        one({ 192, 128, 2, 1, n_rows, 3, 256, 256, 'c', false });
        one({ 64, 64, 2, 3, n_rows, 1, 1280, 1536, n_rows == 8 ? 'c' : 't', false }); // V in several parts
    }
    printf("%s %d\n", n_bad == 0 ? "equal" : "differ", n_bad == 0 ? n_equal : n_bad);
    return n_bad == 0 ? 0 : 1;
}

static void measure(ggml_backend_t backend, specee_attention_op_t op, int n_cells) {
    for (const int n_rows : { 1, 2, 4, 8, 9, 64, 512 }) { // heads as Qwen2.5 1.5B
        attention           a({ 128, 128, 2, 6, n_rows, 1, n_cells, n_cells, 'c', false }, op);
        std::vector<double> times[2];
        for (int i = 0; i < (n_rows > 8 ? 3 : 31); ++i) {
            for (int which = 0; which < 2; ++which) {
                times[which].push_back(a.seconds(backend, which));
            }
        }
        for (auto & t : times) {
            std::sort(t.begin(), t.end());
        }
        const double fmas = 2.0 * 128 * 12 * n_rows * n_cells;
        printf("%3d rows, %d cells: ours %.3f ms (least %.3f: %.1f FMA/ns), ggml's %.3f (least %.3f)\n", n_rows,
               n_cells, times[0][times[0].size() / 2] * 1e3, times[0][0] * 1e3, fmas / times[0][0] / 1e9,
               times[1][times[1].size() / 2] * 1e3, times[1][0] * 1e3);
    }
}

// What threads need for long contexts is part of the graph: nothing is left to get while they run.
static int compute_without_memory(ggml_backend_t backend, specee_attention_op_t op) {
    attention a({ 32, 32, 1, 3, 9, 1, 1 << 18, 1 << 18, 'c', false }, op);
    if (a.ours != nullptr) {
        attention small({ 32, 32, 1, 3, 9, 1, 64, 64, 'c', false }, op);
        small.seconds(backend, 0); // threads, and the plan's memory
#if defined(__linux__)
        FILE * const of   = fopen("/proc/self/statm", "r");
        long         used = 0;
        if (of == nullptr || fscanf(of, "%ld", &used) != 1 || fclose(of) != 0) {
            return 1;
        }
        const auto   bytes = rlim_t(used) * rlim_t(sysconf(_SC_PAGESIZE)) + (1 << 20);
        const rlimit limit = { bytes, bytes };
        setrlimit(RLIMIT_AS, &limit);
#endif
        a.seconds(backend, 0);
    }
    printf("computed\n");
    return 0;
}

int main(int n, char ** arguments) {
    ggml_backend_ptr   backend(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend.get()));
    const auto         op =
        reinterpret_cast<specee_attention_op_t>(ggml_backend_reg_get_proc_address(reg, "specee_attention_op"));
    const bool no_memory = n > 1 && strcmp(arguments[1], "memory") == 0;
    ggml_backend_cpu_set_n_threads(backend.get(), n > 1 && !no_memory ? 1 : n_threads);
    if (no_memory) {
        return compute_without_memory(backend.get(), op);
    }
    if (n > 1) {
        measure(backend.get(), op, std::atoi(arguments[1]));
        return 0;
    }
    return check(backend.get(), op);
}
