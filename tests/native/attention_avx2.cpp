// Our operation for attention compiled for AVX2, as in a ggml that is: each of a few rows against ggml's functions for
// a row alone, which are compiled for AVX2 into this program. Prints "equal N". Built and run by test_attention.py.
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml.h"
#include "normal_numbers.h"
#include "small_batch/attention.h"
#include "vec.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

static constexpr int heads_kv = 2;

// As MUL_MAT, SOFT_MAX and MUL_MAT compute it.
static std::vector<float> alone(const float * q, const ggml_fp16_t * k, size_t k_stride, const ggml_fp16_t * v, int d,
                                int n_cells, const float * mask, float scale) {
    std::vector<ggml_fp16_t> halves(std::max(d, n_cells));
    std::vector<float>       p(n_cells), out(d);
    ggml_fp32_to_fp16_row(q, halves.data(), d);
    for (int c = 0; c < n_cells; ++c) {
        ggml_vec_dot_f16(d, &p[c], 0, const_cast<ggml_fp16_t *>(k + c * k_stride), 0, halves.data(), 0, 1);
    }
    float max = -INFINITY;
    ggml_vec_scale_f32(n_cells, p.data(), scale);
    for (int c = 0; c < n_cells; ++c) {
        p[c] += mask[c];
        max = std::max(max, p[c]);
    }
    const double sum = ggml_vec_soft_max_f32(n_cells, p.data(), p.data(), max);
    ggml_vec_scale_f32(n_cells, p.data(), float(1.0 / sum));
    ggml_fp32_to_fp16_row(p.data(), halves.data(), n_cells);
    for (int i = 0; i < d; ++i) {
        ggml_vec_dot_f16(n_cells, &out[i], 0, const_cast<ggml_fp16_t *>(v + i * n_cells), 0, halves.data(), 0, 1);
    }
    return out;
}

static bool is_equal(ggml_backend_t backend, int d, int n_sharing, int n_rows, int n_cells) {
    ggml_context_ptr     context(ggml_init({ 1 << 26, nullptr, false }));
    ggml_context * const c     = context.get();
    const int            heads = heads_kv * n_sharing;
    ggml_tensor * const  q     = ggml_new_tensor_3d(c, GGML_TYPE_F32, d, heads, n_rows);
    ggml_tensor * const  k     = ggml_new_tensor_4d(c, GGML_TYPE_F16, d, heads_kv, n_cells, 1);
    ggml_tensor * const  of_v  = ggml_new_tensor_4d(c, GGML_TYPE_F16, n_cells, d, heads_kv, 1);
    ggml_tensor * const  mask  = ggml_new_tensor_4d(c, GGML_TYPE_F32, n_cells, n_rows, 1, 1);
    auto * const         x     = static_cast<float *>(q->data);
    auto * const         keys  = static_cast<ggml_fp16_t *>(k->data);
    auto * const         out   = static_cast<ggml_fp16_t *>(of_v->data);
    auto * const         seen  = static_cast<float *>(mask->data);

    normal_numbers normal(d + n_rows);
    for (int64_t i = 0; i < ggml_nelements(q); ++i) {
        x[i] = normal();
    }
    for (int64_t i = 0; i < ggml_nelements(k); ++i) {
        keys[i] = ggml_fp32_to_fp16(normal());
        out[i]  = ggml_fp32_to_fp16(normal());
    }
    for (int i = 0; i < n_rows * n_cells; ++i) {
        seen[i] = i % n_cells < n_cells - 20 + i / n_cells ? 0.0f : -INFINITY;
    }
    ggml_tensor * const v     = ggml_permute(c, of_v, 0, 2, 1, 3);
    const float         scale = 1.0f / std::sqrt(float(d));

    const specee_attention_tensors tensors = { q, k, v, mask, nullptr, scale, 2 };
    ggml_tensor * const            ours    = specee_attention_op(c, &tensors);
    if (ours == nullptr) {
        return false;
    }
    ggml_cgraph * const graph = ggml_new_graph(c);
    ggml_build_forward_expand(graph, ours);
    ggml_backend_graph_compute(backend, graph);
    for (int i = 0; i < n_rows * heads; ++i) {
        const int  at       = i % heads / n_sharing; // head of K and V
        const auto expected = alone(x + i * d, keys + at * d, size_t(d) * heads_kv, out + int64_t(at) * d * n_cells, d,
                                    n_cells, seen + i / heads * n_cells, scale);
        if (memcmp(static_cast<float *>(ours->data) + i * d, expected.data(), d * sizeof(float)) != 0) {
            return false;
        }
    }
    return true;
}

int main() {
    ggml_backend_ptr backend(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    int              n_equal = 0, n_other = 0;
    for (const int d : { 32, 64, 96, 128, 160, 192, 256 }) {
        for (const int n_rows : { 2, 3, 8 }) {
            for (const int n_cells : { 256, 1280 }) {
                const bool equal = is_equal(backend.get(), d, d == 64 ? 3 : 6, n_rows, n_cells);
                equal ? ++n_equal : ++n_other;
            }
        }
    }
    printf("%s %d\n", n_other == 0 ? "equal" : "differ", n_other == 0 ? n_equal : n_other);
    return n_other != 0;
}
