// Which operations give several rows at once the bits of each alone: on every device of a build of ggml.
//
// Prints one line for each device and operation: for 2 to 8 rows = where they are equal, or the largest difference.
// With the argument GPU, not the CPU. To build, with BUILD a build folder:
// g++ -std=c++17 -O2 -IBUILD/llama.cpp/ggml/include equal_rows.cpp -LBUILD/bin -Wl,-rpath,BUILD/bin -lggml -lggml-base
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

static constexpr int N_MAX = 8;

using bytes = std::vector<uint8_t>;

struct input {
    ggml_tensor * tensor;
    bytes         data;
};

static std::vector<float> normal(size_t n, int seed) {
    std::mt19937                    random(seed);
    std::normal_distribution<float> distribution;
    std::vector<float>              values(n);
    for (float & v : values) {
        v = distribution(random);
    }
    return values;
}

// [n][n_in] numbers as a type stores them.
static bytes stored(ggml_type type, const std::vector<float> & values, int64_t n_in) {
    bytes data(ggml_row_size(type, n_in) * (values.size() / n_in));
    if (type == GGML_TYPE_F32) {
        memcpy(data.data(), values.data(), data.size());
    } else {
        ggml_quantize_chunk(type, values.data(), data.data(), 0, values.size() / n_in, n_in, nullptr);
    }
    return data;
}

// Rows [first, first + n) of numbers [..][n_in].
static bytes some_rows(const std::vector<float> & values, int64_t n_in, int first, int n) {
    return stored(GGML_TYPE_F32, { values.begin() + first * n_in, values.begin() + (first + n) * n_in }, n_in);
}

// The result of a graph on this device; empty where it cannot compute it.
static std::vector<float> compute(ggml_backend_t                                                             backend,
                                  const std::function<ggml_tensor *(ggml_context *, std::vector<input> &)> & build) {
    ggml_context_ptr   ctx(ggml_init({ 32 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true }));
    std::vector<input> inputs;
    ggml_tensor *      result = build(ctx.get(), inputs);
    if (!ggml_backend_supports_op(backend, result)) {
        return {};
    }
    ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(ctx.get(), backend));
    for (const input & in : inputs) {
        ggml_backend_tensor_set(in.tensor, in.data.data(), 0, in.data.size());
    }
    ggml_cgraph * graph = ggml_new_graph(ctx.get());
    ggml_build_forward_expand(graph, result);
    if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) {
        return {};
    }
    std::vector<float> out(ggml_nelements(result));
    ggml_backend_tensor_get(result, out.data(), 0, ggml_nbytes(result));
    return out;
}

static void compare(ggml_backend_t backend, const std::string & name,
                    const std::function<std::vector<float>(int first, int n)> & rows) {
    std::vector<std::vector<float>> alone;
    for (int i = 0; i < N_MAX; ++i) {
        alone.push_back(rows(i, 1));
    }
    printf("%-10s %-44s", ggml_backend_name(backend), name.c_str());
    if (alone[0].empty()) {
        printf(" not supported\n");
        return;
    }
    const size_t width = alone[0].size();
    for (int n = 2; n <= N_MAX; ++n) {
        const std::vector<float> together = rows(0, n);
        float                    most     = 0;
        bool                     equal    = together.size() == n * width;
        for (int i = 0; i < n && equal; ++i) {
            for (size_t j = 0; j < width; ++j) {
                most = std::max(most, std::abs(together[i * width + j] - alone[i][j]));
            }
        }
        for (int i = 0; i < n && equal; ++i) {
            equal = memcmp(together.data() + i * width, alone[i].data(), width * sizeof(float)) == 0;
        }
        equal ? printf(" =") : printf(" %.1e", most);
    }
    printf("\n");
}

static void products(ggml_backend_t backend, ggml_type type, int64_t n_in, int64_t n_out) {
    const auto weights     = stored(type, normal(n_in * n_out, 1), n_in);
    const auto activations = normal(n_in * N_MAX, 2);
    compare(backend, std::string(ggml_type_name(type)) + " " + std::to_string(n_in) + " x " + std::to_string(n_out),
            [&](int first, int n) {
                return compute(backend, [&](ggml_context * ctx, std::vector<input> & in) {
                    ggml_tensor * w = ggml_new_tensor_2d(ctx, type, n_in, n_out);
                    ggml_tensor * x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_in, n);
                    in.push_back({ w, weights });
                    in.push_back({ x, some_rows(activations, n_in, first, n) });
                    return ggml_mul_mat(ctx, w, x);
                });
            });
}

// A mixture of experts: each row meets 2 of 6 matrices, in one buffer of the kind that weights lie in.
static void experts(ggml_backend_t backend, ggml_backend_buffer_type_t kind, ggml_type type, int64_t n_in,
                    int64_t n_out) {
    constexpr int64_t n_expert = 6, n_used = 2;
    const auto        weights     = stored(type, normal(n_in * n_out * n_expert, 6), n_in);
    const auto        activations = normal(n_in * N_MAX, 7);
    compare(backend,
            std::string(ggml_type_name(type)) + ", " + ggml_backend_buft_name(kind) + ", experts of " +
                std::to_string(n_in) + " x " + std::to_string(n_out),
            [&](int first, int n) -> std::vector<float> {
                ggml_context_ptr        held(ggml_init({ ggml_tensor_overhead() + 1, nullptr, true }));
                ggml_tensor *           w = ggml_new_tensor_3d(held.get(), type, n_in, n_out, n_expert);
                ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors_from_buft(held.get(), kind));
                return compute(backend, [&](ggml_context * ctx, std::vector<input> & in) {
                    ggml_tensor * x   = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, n_in, 1, n);
                    ggml_tensor * ids = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, n_used, n);
                    in.push_back({ w, weights });
                    in.push_back({ x, some_rows(activations, n_in, first, n) });
                    bytes chosen(n_used * n * sizeof(int32_t));
                    for (int i = 0; i < n; ++i) { // the first one is chosen by all rows
                        const int32_t two[] = { 0, 1 + (first + i) % 3 };
                        memcpy(chosen.data() + i * sizeof two, two, sizeof two);
                    }
                    in.push_back({ ids, chosen });
                    return ggml_mul_mat_id(ctx, w, x, ids);
                });
            });
}

// Where a backend may put weights: the default, and on a CPU layouts of ggml's and ours.
static std::vector<ggml_backend_buffer_type_t> kinds_of_buffer(ggml_backend_dev_t device) {
    std::vector<ggml_backend_buffer_type_t> kinds = { ggml_backend_dev_buffer_type(device) };
    const auto extra = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts");
    for (auto * kind = extra ? extra(device) : nullptr; kind && *kind; ++kind) {
        kinds.push_back(*kind);
    }
    return kinds;
}

// Each row is a sample of one query, and all of them read the same K and V.
static void attention(ggml_backend_t backend, int64_t width, int64_t n_head, int64_t n_head_kv, int64_t n_kv) {
    const auto k_ = stored(GGML_TYPE_F16, normal(width * n_head_kv * n_kv, 3), width);
    const auto v_ = stored(GGML_TYPE_F16, normal(width * n_head_kv * n_kv, 4), width);
    const auto q_ = normal(width * n_head * N_MAX, 5);
    compare(backend,
            "flash " + std::to_string(width) + ", heads " + std::to_string(n_head) + "/" + std::to_string(n_head_kv) +
                ", " + std::to_string(n_kv) + " cells",
            [&](int first, int n) {
                return compute(backend, [&](ggml_context * ctx, std::vector<input> & in) {
                    ggml_tensor * k = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, width, n_head_kv, n_kv);
                    ggml_tensor * v = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, width, n_head_kv, n_kv);
                    ggml_tensor * q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, width, n_head, n);
                    ggml_tensor * m = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, n_kv, 1, 1, n);
                    in.push_back({ k, k_ });
                    in.push_back({ v, v_ });
                    in.push_back({ q, some_rows(q_, width * n_head, first, n) });
                    std::vector<float> mask(n_kv * n, 0.0f);
                    for (int i = 0; i < n; ++i) { // the last row sees all but 3 cells
                        std::fill(mask.begin() + (i + 1) * n_kv - 3 - (N_MAX - 1 - first - i),
                                  mask.begin() + (i + 1) * n_kv, -INFINITY);
                    }
                    in.push_back({ m, stored(GGML_TYPE_F16, mask, n_kv) });
                    const auto repeated = [&](ggml_tensor * t) {
                        t        = ggml_view_4d(ctx, t, t->ne[0], t->ne[2], t->ne[1], 1, t->nb[2], t->nb[1], 0, 0);
                        t->ne[3] = n;
                        return t;
                    };
                    ggml_tensor * qs  = ggml_view_4d(ctx, q, width, 1, n_head, n, q->nb[2], q->nb[1], q->nb[2], 0);
                    ggml_tensor * out = ggml_flash_attn_ext(ctx, qs, repeated(k), repeated(v), m,
                                                            1.0f / std::sqrt((float) width), 0, 0);
                    ggml_prec_set_acc(out, GGML_PREC_F32);
                    return out;
                });
            });
}

int main(int argc, char ** argv) {
    const bool only_gpu = argc > 1 && std::string(argv[1]) == "GPU";
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        if (only_gpu && ggml_backend_dev_type(ggml_backend_dev_get(i)) == GGML_BACKEND_DEVICE_TYPE_CPU) {
            continue;
        }
        ggml_backend_ptr backend(ggml_backend_dev_init(ggml_backend_dev_get(i), nullptr));
        printf("%s: %s; 2 to %d rows\n", ggml_backend_name(backend.get()),
               ggml_backend_dev_description(ggml_backend_dev_get(i)), N_MAX);
        for (ggml_type type : { GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q8_0,
                                GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K,
                                GGML_TYPE_IQ4_XS, GGML_TYPE_IQ4_NL, GGML_TYPE_IQ3_S, GGML_TYPE_TQ2_0, GGML_TYPE_MXFP4,
                                GGML_TYPE_NVFP4, GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32 }) {
            for (auto [n_in, n_out] : { std::pair{ 512, 300 }, { 4096, 1024 }, { 14336, 512 } }) {
                products(backend.get(), type, n_in, n_out);
            }
            for (ggml_backend_buffer_type_t kind : kinds_of_buffer(ggml_backend_dev_get(i))) {
                experts(backend.get(), kind, type, 512, 96);
            }
        }
        for (int64_t n_kv : { 256, 1024, 8192 }) {
            attention(backend.get(), 128, 32, 32, n_kv);
            attention(backend.get(), 128, 32, 8, n_kv);
            attention(backend.get(), 64, 9, 3, n_kv);
        }
    }
}
