// Lenses, predictors and shortlist are set.
#include "exit_weights.h"

#include "rows.h"

specee_exit_weights::specee_exit_weights(const specee_token_matrices & matrices, int32_t n_layer) :
    matrices(matrices), lenses(n_layer + 1), predictors(n_layer + 1) {}

// Memory that the graphs of a device read, -1: of a CPU.
static ggml_backend_buffer_type_t memory_of(const specee_rows & rows, int32_t device) {
    return device < 0 ? ggml_backend_cpu_buffer_type() : rows.devices[device].buft();
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_lens_set(specee_rows * rows, int32_t layer, int32_t rank, const void * down, const void * up,
                        const float * bias) {
    return specee_entry(rows, [&] {
        if (rows->level < SPECEE_LEVEL_EXITS) {
            return rows->fail_level();
        }
        if (layer <= 0 || layer >= rows->n_layer || rank <= 0 || rank % 32 != 0 ||
            (up == nullptr && rank != rows->n_embd)) {
            return specee_fail(SPECEE_INVALID,
                               "a lens needs a layer inside the model and a rank that is a multiple of 32");
        }
        if (!specee_given(down, bias)) {
            return (int32_t) SPECEE_INVALID;
        }
        specee_need_memory((size_t) 2 * rank * rows->n_embd * sizeof(float));
        specee_lens lens;
        lens.ctx.reset(ggml_init({ 3 * ggml_tensor_overhead(), nullptr, /*.no_alloc =*/true }));
        ggml_context * ctx = lens.ctx.get();
        lens.down          = ggml_new_tensor_2d(ctx, GGML_TYPE_Q8_0, rows->n_embd, rank);
        lens.up            = up == nullptr ? nullptr : ggml_new_tensor_2d(ctx, GGML_TYPE_Q8_0, rank, rows->n_embd);
        lens.bias          = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, rows->n_embd);
        const int32_t at   = rows->states_at(layer);
        lens.buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx, memory_of(*rows, rows->device_of[layer - 1])));
        if (lens.buffer == nullptr || (at >= 0 && !rows->need_estimates(at))) {
            return specee_fail(SPECEE_FAILED, "no memory for a lens");
        }
        ggml_backend_buffer_set_usage(lens.buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        ggml_backend_tensor_set(lens.down, down, 0, ggml_nbytes(lens.down));
        if (up != nullptr) {
            ggml_backend_tensor_set(lens.up, up, 0, ggml_nbytes(lens.up));
        }
        ggml_backend_tensor_set(lens.bias, bias, 0, ggml_nbytes(lens.bias));
        rows->drop_graphs(); // those that end at this layer lack it
        rows->exit_weights->lenses[layer] = std::move(lens);
        for (specee_row & r : rows->places) { // what was seen through the one before
            r.lens_layer = r.lens_layer == layer ? -1 : r.lens_layer;
        }
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_predictor_set(specee_rows * rows, int32_t layer, int32_t k, int32_t n_hidden, const float * w1,
                             const float * b1, const float * w2, float b2) {
    return specee_entry(rows, [&] {
        if (rows->level < SPECEE_LEVEL_EXITS) {
            return rows->fail_level();
        }
        if (k < 1 || k > SPECEE_K_MAX || n_hidden < 1 || layer <= 0 || layer >= rows->n_layer ||
            rows->exit_weights->lenses[layer].down == nullptr) {
            return specee_fail(SPECEE_INVALID, "a predictor needs a lens at its layer and 1 to 16 candidates");
        }
        if (!specee_given(w1, b1, w2)) {
            return (int32_t) SPECEE_INVALID;
        }
        specee_predictor predictor;
        predictor.k        = k;
        predictor.n_hidden = n_hidden;
        predictor.w1.resize((size_t) 3 * k * n_hidden);
        for (int32_t i = 0; i < n_hidden; ++i) {
            for (int32_t j = 0; j < 3 * k; ++j) {
                predictor.w1[(size_t) j * n_hidden + i] = w1[(size_t) i * 3 * k + j];
            }
        }
        predictor.b1.assign(b1, b1 + n_hidden);
        predictor.w2.assign(w2, w2 + n_hidden);
        predictor.b2                          = b2;
        rows->exit_weights->predictors[layer] = std::move(predictor);
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_shortlist_set(specee_rows * rows, int32_t n_short, const llama_token * tokens, const void * up) {
    return specee_entry(rows, [&] {
        if (rows->level < SPECEE_LEVEL_EXITS) {
            return rows->fail_level();
        }
        if (n_short < SPECEE_K_MAX || !rows->are_tokens(n_short, tokens)) {
            return specee_fail(SPECEE_INVALID, "a shortlist needs at least 16 tokens of this vocabulary");
        }
        if (!specee_given(up)) {
            return (int32_t) SPECEE_INVALID;
        }
        specee_need_memory((size_t) n_short * rows->n_embd * sizeof(float));
        specee_shortlist list;
        list.tokens.assign(tokens, tokens + n_short);
        std::vector<float> row(rows->n_embd);
        for (const llama_token token : list.tokens) {
            list.constants.push_back(rows->token_matrices->head_row(token, row.data()));
        }
        list.up.resize(1 + rows->devices.size());
        for (int32_t il = 0; il + 1 < rows->n_layer; ++il) { // where there can be a lens
            specee_device_tensor & to = list.up[1 + rows->device_of[il]];
            if (to.tensor != nullptr) {
                continue;
            }
            if (!to.allocate(memory_of(*rows, rows->device_of[il]), GGML_TYPE_Q8_0, rows->n_embd, n_short)) {
                return specee_fail(SPECEE_FAILED, "no memory for a shortlist");
            }
            ggml_backend_buffer_set_usage(to.buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
            ggml_backend_tensor_set(to.tensor, up, 0, ggml_nbytes(to.tensor));
        }
        rows->drop_graphs();
        rows->exit_weights->shortlist = std::move(list);
        return (int32_t) SPECEE_OK;
    });
}
