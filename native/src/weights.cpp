// The weights of lenses, predictors, shortlist and draft head; and rows of the model's own, from which they are fitted.
#include "probe.h"
#include "rows.h"

void specee_q8::set(int32_t rows, int32_t cols, const void * blocks) {
    n_rows             = rows;
    n_cols             = cols;
    const auto * bytes = static_cast<const uint8_t *>(blocks);
    data.assign(bytes, bytes + rows * ggml_row_size(GGML_TYPE_Q8_0, cols));
}

// Gives the tensors of a context memory that the CPU's graphs read; null: there is none.
static ggml_backend_buffer_t allocate(ggml_context * ctx) {
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(ctx, ggml_backend_cpu_buffer_type());
    if (buffer != nullptr) {
        ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    }
    return buffer;
}

static ggml_context * new_context(size_t n_tensors) {
    return ggml_init({ n_tensors * ggml_tensor_overhead(), nullptr, /*.no_alloc =*/true });
}

int32_t specee_lens_set(specee_rows * rows, int32_t layer, int32_t rank, const void * down, const void * up,
                        const float * bias) {
    return specee_entry(rows, [&] {
        if (rows->kv == nullptr) {
            return rows->needs_ranges();
        }
        if (layer <= 0 || layer >= rows->n_layer || rank <= 0 || rank % 32 != 0 ||
            (up == nullptr && rank != rows->n_embd)) {
            return specee_fail(SPECEE_INVALID,
                               "a lens needs a layer inside the model and a rank that is a multiple of 32");
        }
        specee_lens lens;
        lens.ctx.reset(new_context(3));
        ggml_context * ctx = lens.ctx.get();
        lens.down          = ggml_new_tensor_2d(ctx, GGML_TYPE_Q8_0, rows->n_embd, rank);
        lens.up            = up == nullptr ? nullptr : ggml_new_tensor_2d(ctx, GGML_TYPE_Q8_0, rank, rows->n_embd);
        lens.bias          = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, rows->n_embd);
        lens.buffer.reset(allocate(ctx));
        if (lens.buffer == nullptr) {
            return specee_fail(SPECEE_FAILED, "no memory for a lens");
        }
        ggml_backend_tensor_set(lens.down, down, 0, ggml_nbytes(lens.down));
        if (up != nullptr) {
            ggml_backend_tensor_set(lens.up, up, 0, ggml_nbytes(lens.up));
        }
        ggml_backend_tensor_set(lens.bias, bias, 0, ggml_nbytes(lens.bias));
        rows->drop_graphs(); // those that end at this layer lack it
        rows->probe->lenses[layer] = std::move(lens);
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_predictor_set(specee_rows * rows, int32_t layer, int32_t k, int32_t n_hidden, const float * w1,
                             const float * b1, const float * w2, float b2) {
    return specee_entry(rows, [&] {
        if (rows->kv == nullptr) {
            return rows->needs_ranges();
        }
        if (k < 1 || k > SPECEE_K_MAX || n_hidden < 1 || layer <= 0 || layer >= rows->n_layer ||
            rows->probe->lenses[layer].down == nullptr) {
            return specee_fail(SPECEE_INVALID, "a predictor needs a lens at its layer and 1 to 16 candidates");
        }
        specee_mlp mlp;
        mlp.k        = k;
        mlp.n_hidden = n_hidden;
        mlp.w1.resize((size_t) 3 * k * n_hidden);
        for (int32_t i = 0; i < n_hidden; ++i) {
            for (int32_t j = 0; j < 3 * k; ++j) {
                mlp.w1[(size_t) j * n_hidden + i] = w1[(size_t) i * 3 * k + j];
            }
        }
        mlp.b1.assign(b1, b1 + n_hidden);
        mlp.w2.assign(w2, w2 + n_hidden);
        mlp.b2                         = b2;
        rows->probe->predictors[layer] = std::move(mlp);
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_shortlist_set(specee_rows * rows, int32_t n_short, const llama_token * tokens, const void * up) {
    return specee_entry(rows, [&] {
        if (rows->kv == nullptr) {
            return rows->needs_ranges();
        }
        if (n_short < SPECEE_K_MAX || !rows->are_tokens(n_short, tokens)) {
            return specee_fail(SPECEE_INVALID, "a shortlist needs at least 16 tokens of this vocabulary");
        }
        specee_shortlist list;
        list.tokens.assign(tokens, tokens + n_short);
        list.ctx.reset(new_context(1));
        list.up = ggml_new_tensor_2d(list.ctx.get(), GGML_TYPE_Q8_0, rows->n_embd, n_short);
        list.buffer.reset(allocate(list.ctx.get()));
        if (list.buffer == nullptr) {
            return specee_fail(SPECEE_FAILED, "no memory for a shortlist");
        }
        ggml_backend_tensor_set(list.up, up, 0, ggml_nbytes(list.up));
        rows->drop_graphs();
        rows->probe->shortlist = std::move(list);
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_draft_set(specee_rows * rows, int32_t rank, const void * down, int32_t n_short,
                         const llama_token * tokens, const void * up, const float * bias) {
    return specee_entry(rows, [&] {
        if (rows->kv == nullptr) {
            return rows->needs_ranges();
        }
        if (rank <= 0 || rank % 32 != 0 || n_short < SPECEE_K_MAX || !rows->are_tokens(n_short, tokens)) {
            return specee_fail(SPECEE_INVALID,
                               "a draft head needs a rank that is a multiple of 32 and a shortlist of this vocabulary");
        }
        specee_draft draft;
        draft.down.set(rank, 2 * rows->n_embd, down);
        draft.tokens.assign(tokens, tokens + n_short);
        draft.up.set(n_short, rank, up);
        draft.bias.assign(bias, bias + n_short);
        rows->probe->draft = std::move(draft);
        return (int32_t) SPECEE_OK;
    });
}

// n rows of a matrix that one of the head's functions reads row by row.
template <typename F>
static int32_t read_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out, F read) {
    return specee_entry(rows, [&] {
        if (rows->kv == nullptr) {
            return rows->needs_ranges();
        }
        if (!rows->are_tokens(n, tokens)) {
            return specee_fail(SPECEE_INVALID, "no such token");
        }
        for (int32_t i = 0; i < n; ++i) {
            read(*rows->head, tokens[i], out + (size_t) i * rows->n_embd);
        }
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_embedding_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out) {
    return read_rows(rows, n, tokens, out,
                     [](const specee_head & head, llama_token token, float * row) { head.embedding_row(token, row); });
}

int32_t specee_head_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out) {
    return read_rows(rows, n, tokens, out,
                     [](const specee_head & head, llama_token token, float * row) { head.head_row(token, row); });
}
