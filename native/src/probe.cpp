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

specee_probe::specee_probe(specee_head & head, int32_t n_layer) :
    head(head), lenses(n_layer + 1), predictors(n_layer + 1), x(2 * head.n_embd) {}

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

bool specee_rows::can_probe(const specee_row & r, int32_t k) const {
    return r.layer >= 0 && r.lens_layer == r.layer && probe->predictors[r.layer].k == k;
}

void specee_rows::probe_row(specee_row & r, const llama_token * candidates, float * score, float * features) {
    const specee_mlp & mlp    = probe->predictors[r.layer];
    float *            before = probs.data() + place(r) * SPECEE_K_MAX;
    if (!r.probed) {
        std::fill_n(before, mlp.k, 1.0f / mlp.k);
        r.probed = true;
    }
    *score = probe->score(mlp, estimate(r), candidates, before, features);
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_rows_probe(specee_rows * rows, int32_t n, const int32_t * ids, int32_t k, const llama_token * candidates,
                          float * scores, float * features) {
    return specee_entry(rows, [&] {
        if (rows->kv == nullptr) {
            return rows->needs_ranges();
        }
        if (n < 1 || k < 1 || k > SPECEE_K_MAX || !rows->are_tokens(n * k, candidates)) {
            return specee_fail(SPECEE_INVALID, "no row, or no such candidate");
        }
        for (int32_t i = 0; i < n; ++i) { // all of them before the first is probed
            const specee_row * r = rows->find(ids[i]);
            if (r == nullptr) {
                return specee_fail(SPECEE_INVALID, "no such row");
            }
            if (!rows->can_probe(*r, k)) {
                return specee_fail(SPECEE_INVALID, "no predictor for " + std::to_string(k) + " candidates at layer " +
                                                       std::to_string(r->layer));
            }
        }
        for (int32_t i = 0; i < n; ++i) {
            rows->probe_row(*rows->find(ids[i]), candidates + (size_t) i * k, scores + i,
                            features == nullptr ? nullptr : features + (size_t) i * 3 * k);
        }
        return (int32_t) SPECEE_OK;
    });
}

// What specee_rows_run_to_exit needs to know before it changes anything.
static int32_t check_exits(const specee_rows & rows, const specee_row * r, int32_t n_layers, const int32_t * layers,
                           int32_t k, const llama_token * candidates) {
    if (r == nullptr || !r->in_flight || rows.slots[r->slot].in_flight.back() != r->id) {
        return specee_fail(SPECEE_INVALID, "only the last row in flight of a slot runs to an exit");
    }
    if (k < 0 || k > SPECEE_K_MAX || n_layers < 0) {
        return specee_fail(SPECEE_INVALID, "too many candidates");
    }
    if (k > 0 ? !rows.are_tokens(k, candidates) : rows.probe->shortlist.up == nullptr) {
        return specee_fail(SPECEE_INVALID, "no such candidate, or no shortlist is set");
    }
    int32_t depth = r->depth;
    for (int32_t i = 0; i < n_layers; ++i) {
        if (layers[i] <= depth || layers[i] >= rows.n_layer) {
            return specee_fail(SPECEE_INVALID, "exit layers must ascend from beyond the row's depth");
        }
        depth = layers[i];
        if (rows.probe->lenses[depth].down == nullptr || (k > 0 && rows.probe->predictors[depth].k != k)) {
            return specee_fail(SPECEE_INVALID, "no lens, or no predictor for " + std::to_string(k) +
                                                   " candidates, is set for layer " + std::to_string(depth));
        }
    }
    return SPECEE_OK;
}

int32_t specee_rows_run_to_exit(specee_rows * rows, int32_t id, int32_t n_layers, const int32_t * layers, int32_t k,
                                const llama_token * candidates, float threshold, float * scores, llama_token * best) {
    return specee_entry(rows, [&] {
        if (rows->kv == nullptr) {
            return rows->needs_ranges();
        }
        specee_row * r      = rows->find(id);
        int32_t      status = check_exits(*rows, r, n_layers, layers, k, candidates);
        for (int32_t i = 0; status == SPECEE_OK && i < n_layers; ++i) {
            status = rows->advance_deferred(rows->slots[r->slot], layers[i], false, k == 0);
            if (status != SPECEE_OK) {
                return status;
            }
            if (k == 0) {
                rows->probe->margin(rows->short_logits.data(), best, scores + i);
            } else {
                rows->probe_row(*r, candidates, scores + i, nullptr);
            }
            if (scores[i] > threshold) {
                return i;
            }
        }
        return status == SPECEE_OK ? n_layers : status;
    });
}

int32_t specee_rows_draft(specee_rows * rows, int32_t id, llama_token token, int32_t k, llama_token * out) {
    return specee_entry(rows, [&] {
        if (rows->kv == nullptr) {
            return rows->needs_ranges();
        }
        if (k < 1 || k > SPECEE_K_MAX || rows->probe->draft.tokens.empty() || !rows->are_tokens(1, &token)) {
            return specee_fail(SPECEE_INVALID,
                               "no draft head is set, too many candidates are asked for, or no such token");
        }
        const specee_row * r     = rows->find(id);
        const float *      state = r == nullptr ? nullptr : rows->final_state(*r);
        if (state == nullptr) {
            return specee_fail(SPECEE_INVALID, "no such row, or its final state is not known");
        }
        rows->probe->draft_best(state, token, k, out);
        return (int32_t) SPECEE_OK;
    });
}
