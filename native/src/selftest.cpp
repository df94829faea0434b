#include "selftest.h"

#include "error.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml.h"
#include "specee.h"

#include <cmath>
#include <string>
#include <vector>

static constexpr int64_t n_in  = 512; // two blocks of the K quantisations
static constexpr int64_t n_out = 64;  // a multiple of what AMX and the repacked kernels ask for

// Activations are rounded to 8 bits in blocks: about 0.5% of the result's norm. Wrong layouts are off by 100%.
static constexpr double tolerance = 0.03;

static std::vector<float> noise(size_t n, uint32_t seed) {
    std::vector<float> values(n);
    for (float & value : values) {
        seed  = seed * 1664525u + 1013904223u;
        value = (float) (seed >> 8) / (float) (1u << 23) - 1.0f;
    }
    return values;
}

static std::vector<ggml_backend_buffer_type_t> extra_buffer_types() {
    std::vector<ggml_backend_buffer_type_t> types;

    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    ggml_backend_reg_t reg = cpu != nullptr ? ggml_backend_dev_backend_reg(cpu) : nullptr;
    if (reg == nullptr) {
        return types;
    }
    auto get =
        (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_dev_get_extra_bufts");
    for (ggml_backend_buffer_type_t * type = get != nullptr ? get(cpu) : nullptr; type != nullptr && *type != nullptr;
         type++) {
        types.push_back(*type);
    }
    return types;
}

// The product of n_rows activations with weights of one kind in one layout; false when it is wrong.
static bool product_agrees(ggml_backend_t backend, ggml_backend_buffer_type_t layout, ggml_type type, int64_t n_rows) {
    const std::vector<float> w = noise(n_in * n_out, 1);  // [n_out, n_in]
    const std::vector<float> x = noise(n_in * n_rows, 2); // [n_rows, n_in]

    std::vector<uint8_t> packed(ggml_row_size(type, n_in) * n_out);
    std::vector<float>   unpacked(w.size());
    ggml_quantize_chunk(type, w.data(), packed.data(), 0, n_out, n_in, nullptr);
    ggml_get_type_traits(type)->to_float(packed.data(), unpacked.data(), (int64_t) unpacked.size());

    const ggml_init_params params = { ggml_tensor_overhead() * 8 + ggml_graph_overhead(), nullptr, true };
    ggml_context_ptr       weights(ggml_init(params));
    ggml_context_ptr       compute(ggml_init(params));
    ggml_tensor *          tw = ggml_new_tensor_2d(weights.get(), type, n_in, n_out);

    ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors_from_buft(weights.get(), layout));
    ggml_tensor *           tx = ggml_new_tensor_2d(compute.get(), GGML_TYPE_F32, n_in, n_rows);
    ggml_tensor *           ty = ggml_mul_mat(compute.get(), tw, tx); // [n_rows, n_out]
    if (!buffer || !ggml_backend_supports_op(backend, ty)) {
        return true; // llama.cpp asks the same question and does not use this layout either
    }
    ggml_backend_buffer_ptr activations(ggml_backend_alloc_ctx_tensors(compute.get(), backend));
    ggml_backend_tensor_set(tw, packed.data(), 0, packed.size());
    ggml_backend_tensor_set(tx, x.data(), 0, x.size() * sizeof(float));

    ggml_cgraph * graph = ggml_new_graph(compute.get());
    ggml_build_forward_expand(graph, ty);
    std::vector<float> y(n_out * n_rows);
    const bool         computed = ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS;
    ggml_backend_tensor_get(ty, y.data(), 0, y.size() * sizeof(float));

    double error = 0.0, norm = 0.0;
    for (int64_t row = 0; row < n_rows; row++) {
        for (int64_t out = 0; out < n_out; out++) {
            double expected = 0.0;
            for (int64_t i = 0; i < n_in; i++) {
                expected += (double) unpacked[out * n_in + i] * x[row * n_in + i];
            }
            error += std::pow(y[row * n_out + out] - expected, 2);
            norm += expected * expected;
        }
    }
    const double relative = std::sqrt(error / norm);
    if (computed && relative < tolerance) { // false for NaN
        return true;
    }
    specee_fail(SPECEE_FAILED, std::string(ggml_type_name(type)) + " weights on " + ggml_backend_buft_name(layout) +
                                   ", " + std::to_string(n_rows) + " rows: relative error " + std::to_string(relative));
    return false;
}

int32_t specee_selftest(int32_t use_extra_buffers) {
    return specee_guard((int32_t) SPECEE_FAILED, [&] {
        ggml_backend_ptr backend(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
        if (!backend) {
            return specee_fail(SPECEE_FAILED, "no CPU backend");
        }
        std::vector<ggml_backend_buffer_type_t> layouts = { ggml_backend_get_default_buffer_type(backend.get()) };
        if (use_extra_buffers != 0) {
            for (ggml_backend_buffer_type_t layout : extra_buffer_types()) {
                layouts.push_back(layout);
            }
        }
        for (ggml_backend_buffer_type_t layout : layouts) {
            for (ggml_type type : { GGML_TYPE_F16, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q8_0,
                                    GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K }) {
                for (int64_t n_rows : { 1, 4, 32 }) {
                    if (!product_agrees(backend.get(), layout, type, n_rows)) {
                        return (int32_t) SPECEE_FAILED;
                    }
                }
            }
        }
        return (int32_t) SPECEE_OK;
    });
}

const char * specee_cpu_buffers(void) {
    return specee_guard("", [] {
        static thread_local std::string names;
        names.clear();
        for (ggml_backend_buffer_type_t type : extra_buffer_types()) {
            names += (names.empty() ? "" : ",") + std::string(ggml_backend_buft_name(type));
        }
        return names.c_str();
    });
}
