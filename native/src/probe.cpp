#include "probe.h"

#include "rows.h"

#include "ggml-cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>

static float dot(const float * a, const float * b, int32_t n) {
    float s[8] = {}; // independent sums, so that the compiler may use vectors
    for (int32_t i = 0; i + 8 <= n; i += 8) {
        for (int j = 0; j < 8; ++j) {
            s[j] += a[i + j] * b[i + j];
        }
    }
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

static float inverse_rms(const float * v, int32_t n, float eps) {
    return 1.0f / std::sqrt(dot(v, v, n) / n + eps);
}

void specee_q8::set(int32_t rows, int32_t cols, const void * blocks) {
    n_rows             = rows;
    n_cols             = cols;
    const auto * bytes = static_cast<const uint8_t *>(blocks);
    data.assign(bytes, bytes + rows * ggml_row_size(GGML_TYPE_Q8_0, cols));
}

specee_probe::specee_probe(specee_head & head) : head(head), x(2 * head.n_embd) {}

void specee_probe::multiply(const specee_q8 & m, const float * v, float * out) {
    const auto * traits   = ggml_get_type_traits_cpu(GGML_TYPE_Q8_0);
    const size_t row_size = ggml_row_size(GGML_TYPE_Q8_0, m.n_cols);
    quantized.resize(row_size);
    traits->from_float(v, quantized.data(), m.n_cols);
    for (int32_t i = 0; i < m.n_rows; ++i) {
        traits->vec_dot(m.n_cols, out + i, 0, m.data.data() + i * row_size, 0, quantized.data(), 0, 1);
    }
}

float specee_probe::score(const specee_mlp & mlp, const float * estimate, const llama_token * candidates, float * probs,
                          float * features) {
    const int32_t n = head.n_embd;
    const int32_t k = mlp.k;
    // a row is probed at several layers with the same candidates
    if (sliced_tokens.size() != (size_t) k || !std::equal(candidates, candidates + k, sliced_tokens.begin())) {
        sliced_tokens.assign(candidates, candidates + k);
        sliced.resize((size_t) k * n);
        for (int32_t i = 0; i < k; ++i) {
            head.head_row(candidates[i], sliced.data() + (size_t) i * n);
        }
    }

    const float scale = inverse_rms(estimate, n, head.eps);
    float       f[3 * SPECEE_K_MAX];
    float       top = -INFINITY;
    for (int32_t i = 0; i < k; ++i) {
        f[i] = dot(estimate, sliced.data() + (size_t) i * n, n) * scale +
               (head.bias.empty() ? 0.0f : head.bias[candidates[i]]);
        top  = std::max(top, f[i]);
    }
    float sum = 0;
    for (int32_t i = 0; i < k; ++i) {
        f[k + i] = std::exp(f[i] - top);
        sum += f[k + i];
    }
    for (int32_t i = 0; i < k; ++i) {
        f[k + i] /= sum;
        f[2 * k + i] = f[k + i] - probs[i];
        probs[i]     = f[k + i];
    }
    if (features != nullptr) {
        std::copy_n(f, 3 * k, features);
    }

    hidden_units = mlp.b1;
    for (int32_t j = 0; j < 3 * k; ++j) {
        const float * w = mlp.w1.data() + (size_t) j * mlp.n_hidden;
        for (int32_t i = 0; i < mlp.n_hidden; ++i) {
            hidden_units[i] += f[j] * w[i];
        }
    }
    for (float & u : hidden_units) {
        u = std::max(u, 0.0f);
    }
    float logit = mlp.b2;
    for (int32_t i = 0; i < mlp.n_hidden; ++i) {
        logit += hidden_units[i] * mlp.w2[i];
    }
    return 1.0f / (1.0f + std::exp(-logit));
}

void specee_probe::margin(const float * logits, llama_token * best, float * lead) const {
    const size_t n      = shortlist.tokens.size();
    size_t       first  = 0;
    float        top    = -INFINITY;
    float        second = -INFINITY;
    for (size_t i = 0; i < n; ++i) {
        if (logits[i] > top) {
            second = top;
            top    = logits[i];
            first  = i;
        } else if (logits[i] > second) {
            second = logits[i];
        }
    }
    float sum = 0;
    for (size_t i = 0; i < n; ++i) {
        const float d = logits[i] - top;
        sum += d > -20.0f ? std::exp(d) : 0.0f; // the rest is below rounding
    }
    *best = shortlist.tokens[first];
    *lead = (1.0f - std::exp(second - top)) / sum;
}

// The k tokens with the best scores. k is small: insertion into a sorted list, nearly always one failed comparison.
static void best_tokens(const std::vector<llama_token> & tokens, const float * scores, const float * bias, int32_t k,
                        llama_token * out) {
    float best[SPECEE_K_MAX];
    std::fill_n(best, k, -INFINITY);
    for (size_t i = 0; i < tokens.size(); ++i) {
        const float v = scores[i] + bias[i];
        if (v > best[k - 1]) {
            int32_t j = k - 1;
            for (; j > 0 && best[j - 1] < v; --j) {
                best[j] = best[j - 1];
                out[j]  = out[j - 1];
            }
            best[j] = v;
            out[j]  = tokens[i];
        }
    }
}

void specee_probe::draft_best(const float * final_state, llama_token token, int32_t k, llama_token * out) {
    const int32_t n = head.n_embd;
    head.embedding_row(token, x.data() + n);
    const float s = inverse_rms(final_state, n, head.eps);
    const float e = inverse_rms(x.data() + n, n, head.eps);
    for (int32_t i = 0; i < n; ++i) {
        x[i] = final_state[i] * s;
        x[n + i] *= e;
    }
    z.resize(draft.down.n_rows);
    multiply(draft.down, x.data(), z.data());
    scores.resize(draft.tokens.size());
    multiply(draft.up, z.data(), scores.data());
    best_tokens(draft.tokens, scores.data(), draft.bias.data(), k, out);
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

static bool are_tokens(const specee_rows * rows, int32_t n, const llama_token * tokens) {
    return std::all_of(tokens, tokens + n, [&](llama_token t) { return t >= 0 && t < rows->n_vocab; });
}

int32_t specee_lens_set(specee_rows * rows, int32_t layer, int32_t rank, const void * down, const void * up,
                        const float * bias) {
    if (rows->kv == nullptr || layer <= 0 || layer >= rows->n_layer || rank <= 0 || rank % 32 != 0 ||
        (up == nullptr && rank != rows->n_embd)) {
        return specee_fail(SPECEE_INVALID, "a lens needs a layer inside the model and a rank that is a multiple of 32");
    }
    specee_lens      lens;
    ggml_init_params params = { 3 * ggml_tensor_overhead(), nullptr, /*.no_alloc =*/true };
    lens.ctx.reset(ggml_init(params));
    lens.down = ggml_new_tensor_2d(lens.ctx.get(), GGML_TYPE_Q8_0, rows->n_embd, rank);
    lens.up   = up == nullptr ? nullptr : ggml_new_tensor_2d(lens.ctx.get(), GGML_TYPE_Q8_0, rank, rows->n_embd);
    lens.bias = ggml_new_tensor_1d(lens.ctx.get(), GGML_TYPE_F32, rows->n_embd);
    lens.buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(lens.ctx.get(), ggml_backend_cpu_buffer_type()));
    if (lens.buffer == nullptr) {
        return specee_fail(SPECEE_FAILED, "no memory for a lens");
    }
    ggml_backend_buffer_set_usage(lens.buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    ggml_backend_tensor_set(lens.down, down, 0, ggml_nbytes(lens.down));
    if (up != nullptr) {
        ggml_backend_tensor_set(lens.up, up, 0, ggml_nbytes(lens.up));
    }
    ggml_backend_tensor_set(lens.bias, bias, 0, ggml_nbytes(lens.bias));
    rows->drop_graphs(); // those that end at this layer lack it
    rows->probe->lenses[layer] = std::move(lens);
    return SPECEE_OK;
}

int32_t specee_predictor_set(specee_rows * rows, int32_t layer, int32_t k, int32_t n_hidden, const float * w1,
                             const float * b1, const float * w2, float b2) {
    if (k < 1 || k > SPECEE_K_MAX || n_hidden < 1 || rows->probe->lenses.count(layer) == 0) {
        return specee_fail(SPECEE_INVALID, "a predictor needs a lens at its layer and 1 to 16 candidates");
    }
    specee_mlp & mlp = rows->probe->predictors[layer];
    mlp.k            = k;
    mlp.n_hidden     = n_hidden;
    mlp.w1.resize((size_t) 3 * k * n_hidden);
    for (int32_t i = 0; i < n_hidden; ++i) {
        for (int32_t j = 0; j < 3 * k; ++j) {
            mlp.w1[(size_t) j * n_hidden + i] = w1[(size_t) i * 3 * k + j];
        }
    }
    mlp.b1.assign(b1, b1 + n_hidden);
    mlp.w2.assign(w2, w2 + n_hidden);
    mlp.b2 = b2;
    return SPECEE_OK;
}

int32_t specee_shortlist_set(specee_rows * rows, int32_t n_short, const llama_token * tokens, const void * up) {
    if (rows->kv == nullptr || n_short < SPECEE_K_MAX || !are_tokens(rows, n_short, tokens)) {
        return specee_fail(SPECEE_INVALID, "a shortlist needs at least 16 tokens of this vocabulary");
    }
    specee_shortlist list;
    list.tokens.assign(tokens, tokens + n_short);
    ggml_init_params params = { ggml_tensor_overhead(), nullptr, /*.no_alloc =*/true };
    list.ctx.reset(ggml_init(params));
    list.up = ggml_new_tensor_2d(list.ctx.get(), GGML_TYPE_Q8_0, rows->n_embd, n_short);
    list.buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(list.ctx.get(), ggml_backend_cpu_buffer_type()));
    if (list.buffer == nullptr) {
        return specee_fail(SPECEE_FAILED, "no memory for a shortlist");
    }
    ggml_backend_buffer_set_usage(list.buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    ggml_backend_tensor_set(list.up, up, 0, ggml_nbytes(list.up));
    rows->drop_graphs();
    rows->probe->shortlist = std::move(list);
    return SPECEE_OK;
}

int32_t specee_draft_set(specee_rows * rows, int32_t rank, const void * down, int32_t n_short,
                         const llama_token * tokens, const void * up, const float * bias) {
    if (rank <= 0 || rank % 32 != 0 || n_short < SPECEE_K_MAX || !are_tokens(rows, n_short, tokens)) {
        return specee_fail(SPECEE_INVALID,
                           "a draft head needs a rank that is a multiple of 32 and a shortlist of this vocabulary");
    }
    specee_probe & probe = *rows->probe;
    probe.draft.down.set(rank, 2 * rows->n_embd, down);
    probe.draft.tokens.assign(tokens, tokens + n_short);
    probe.draft.up.set(n_short, rank, up);
    probe.draft.bias.assign(bias, bias + n_short);
    return SPECEE_OK;
}

int32_t specee_rows::look(specee_sequence & s, llama_pos p, int32_t k, const llama_token * candidates, float * score,
                          float * features) {
    auto & r   = row(s, p);
    auto   mlp = probe->predictors.find(r.layer);
    if (r.lens_layer != r.layer || mlp == probe->predictors.end() || mlp->second.k != k) {
        return specee_fail(SPECEE_INVALID,
                           "no predictor for " + std::to_string(k) + " candidates at layer " + std::to_string(r.layer));
    }
    float * probs = s.probs.data() + (size_t) (p % ring) * SPECEE_K_MAX;
    if (!r.probed) {
        std::fill_n(probs, k, 1.0f / k);
        r.probed = true;
    }
    *score = probe->score(mlp->second, estimate(s, p), candidates, probs, features);
    return SPECEE_OK;
}

int32_t specee_rows_probe(specee_rows * rows, llama_seq_id seq, llama_pos pos, int32_t k,
                          const llama_token * candidates, float * score, float * features) {
    specee_sequence & s = rows->sequence(seq);
    if (!rows->kept(s, pos) || !are_tokens(rows, k, candidates)) {
        return specee_fail(SPECEE_INVALID, "no such row or candidate");
    }
    return rows->look(s, pos, k, candidates, score, features);
}

int32_t specee_rows_rise(specee_rows * rows, llama_seq_id seq, llama_token token, int32_t n_layers,
                         const int32_t * layers, int32_t k, const llama_token * candidates, float threshold,
                         float * scores, llama_token * best) {
    specee_sequence & s = rows->sequence(seq);
    if (rows->kv == nullptr || k < 0 || k > SPECEE_K_MAX) {
        return specee_fail(SPECEE_INVALID, "no layer ranges, or too many candidates");
    }
    if (k > 0 ? !are_tokens(rows, k, candidates) : rows->probe->shortlist.up == nullptr) {
        return specee_fail(SPECEE_INVALID, "no such candidate, or no shortlist is set");
    }
    for (int32_t i = 0; i < n_layers; ++i) {
        if (rows->probe->lenses.count(layers[i]) == 0) {
            return specee_fail(SPECEE_INVALID, "no lens is set for layer " + std::to_string(layers[i]));
        }
        int32_t status = rows->climb(seq, i == 0 ? token : -1, layers[i], k == 0);
        if (status != SPECEE_OK) {
            return status;
        }
        if (k == 0) {
            rows->probe->margin(rows->short_logits.data(), best, scores + i);
        } else {
            status = rows->look(s, s.length - 1, k, candidates, scores + i, nullptr);
        }
        if (status != SPECEE_OK) {
            return status;
        }
        if (scores[i] > threshold) {
            return i;
        }
    }
    return n_layers;
}

int32_t specee_rows_draft(specee_rows * rows, llama_seq_id seq, llama_pos pos, llama_token token, int32_t k,
                          llama_token * out) {
    specee_sequence & s = rows->sequence(seq);
    if (k < 1 || k > SPECEE_K_MAX || rows->probe->draft.tokens.empty() || token < 0 || token >= rows->n_vocab) {
        return specee_fail(SPECEE_INVALID, "no draft head is set, or too many candidates are asked for");
    }
    const float * state = rows->final_state(s, pos - 1);
    if (state == nullptr) {
        return specee_fail(SPECEE_INVALID, "the final state before this position is not known");
    }
    rows->probe->draft_best(state, token, k, out);
    return SPECEE_OK;
}

int32_t specee_embedding_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out) {
    if (!rows->head->is_open() || !are_tokens(rows, n, tokens)) {
        return specee_fail(SPECEE_INVALID, "no such token");
    }
    for (int32_t i = 0; i < n; ++i) {
        rows->head->embedding_row(tokens[i], out + (size_t) i * rows->n_embd);
    }
    return SPECEE_OK;
}

int32_t specee_head_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out) {
    if (!rows->head->is_open() || !are_tokens(rows, n, tokens)) {
        return specee_fail(SPECEE_INVALID, "no such token");
    }
    for (int32_t i = 0; i < n; ++i) {
        rows->head->head_row(tokens[i], out + (size_t) i * rows->n_embd);
    }
    return SPECEE_OK;
}
