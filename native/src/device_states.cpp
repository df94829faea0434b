#include "device_states.h"

#include "rows.h"

#include <algorithm>

bool specee_device_tensor::allocate(ggml_backend_buffer_type_t buft, ggml_type type, int64_t n0, int64_t n1) {
    ctx.reset(ggml_init({ ggml_tensor_overhead(), nullptr, /*.no_alloc =*/true }));
    tensor = ggml_new_tensor_2d(ctx.get(), type, n0, n1);
    buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft));
    if (buffer == nullptr) {
        tensor = nullptr;
    }
    return tensor != nullptr;
}

void specee_rows::find_devices() {
    has_devices         = std::any_of(ctx.backend_ptrs.begin(), ctx.backend_ptrs.end(), [](ggml_backend_t backend) {
        return ggml_backend_dev_type(ggml_backend_get_device(backend)) != GGML_BACKEND_DEVICE_TYPE_CPU;
    });
    const auto index_of = [&](ggml_backend_dev_t dev) {
        const auto type = ggml_backend_dev_type(dev);
        if (type == GGML_BACKEND_DEVICE_TYPE_CPU || type == GGML_BACKEND_DEVICE_TYPE_META) {
            return -1;
        }
        for (size_t i = 0; i < devices.size(); ++i) {
            if (devices[i].dev == dev) {
                return (int32_t) i;
            }
        }
        for (ggml_backend_t backend : ctx.backend_ptrs) {
            if (ggml_backend_get_device(backend) == dev) {
                devices.emplace_back();
                devices.back().dev     = dev;
                devices.back().backend = backend;
                return (int32_t) devices.size() - 1;
            }
        }
        return -1;
    };
    for (int32_t il = 0; il < n_layer; ++il) {
        device_of.push_back(index_of(model.dev_layer(il)));
    }
    device_of.push_back(index_of(model.dev_output()));
}

int32_t specee_rows::states_at(int32_t depth) {
    const int32_t at = depth > 0 ? device_of[depth - 1] : -1;
    if (at < 0 || device_of[depth] != at) { // at a border the host hands them on
        return -1;
    }
    specee_device & device = devices[at];
    if (device.states.tensor == nullptr && device.has_memory) {
        device.has_memory = device.states.allocate(device.buft(), GGML_TYPE_F32, n_embd, 2 * (int64_t) n_kept);
    }
    return device.has_memory ? at : -1;
}

bool specee_rows::need_estimates(int32_t device) {
    specee_device_tensor & estimates = devices[device].estimates;
    return estimates.tensor != nullptr ||
           estimates.allocate(devices[device].buft(), GGML_TYPE_F32, n_embd, 2 * (int64_t) n_kept);
}

const float * specee_rows::hidden(specee_row & r) {
    if (r.on_device && !r.has_state) {
        fetch(devices[device_of[r.layer - 1]].states, r, host_state(r));
        r.has_state = true;
    }
    return host_state(r);
}

const float * specee_rows::estimate(specee_row & r) {
    if (r.on_device && !r.has_estimate) {
        fetch(devices[device_of[r.lens_layer - 1]].estimates, r, host_estimate(r));
        r.has_estimate = true;
    }
    return host_estimate(r);
}

void specee_rows::fetch(const specee_device_tensor & from, const specee_row & r, float * to) {
    const size_t size = n_embd * sizeof(float);
    ggml_backend_tensor_get(from.tensor, to, place_on_device(r) * size, size);
    if (!ggml_backend_buffer_is_host(from.buffer.get())) {
        ++transfers.n_to_host;
        transfers.bytes_to_host += (int64_t) size;
        ++transfers.n_waits;
    }
}

bool specee_rows::draft_on_device(const specee_row & r, llama_token token, int32_t k, llama_token * out) {
    return r.on_device &&
           draft_head.best_guesses(*token_matrices, devices[device_of[r.layer - 1]], (int32_t) place_on_device(r),
                                   r.layer < n_layer, token, k, out, transfers);
}

void specee_rows::set_places(const specee_range_graph & graph) {
    for (size_t i = 0; i < batch.size(); ++i) {
        specee_row & r = *batch[i];
        if (graph.in_at != nullptr) {
            static_cast<int32_t *>(graph.in_at->data)[i] = (int32_t) place_on_device(r);
        }
        if (graph.out_at != nullptr) {
            static_cast<int32_t *>(graph.out_at->data)[i] = (int32_t) (place(r) + (1 - r.turn) * n_kept);
        }
    }
}
