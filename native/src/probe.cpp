// Probes of rows at exit layers, and the run of a row from one to the next.
#include "exit_weights.h"
#include "rows.h"
#include "vector_math.h"

#include <algorithm>
#include <cmath>

float specee_exit_weights::score(const specee_predictor & predictor, const float * estimate,
                                 const llama_token * candidates, float * probs, float * features) {
    const int32_t n = matrices.n_embd;
    const int32_t k = predictor.k;
    // a row is probed at several layers with the same candidates
    if (head_tokens.size() != (size_t) k || !std::equal(candidates, candidates + k, head_tokens.begin())) {
        head_tokens.assign(candidates, candidates + k);
        head_rows.resize((size_t) k * n);
        constants.resize(k);
        for (int32_t i = 0; i < k; ++i) {
            constants[i] = matrices.head_row(candidates[i], head_rows.data() + (size_t) i * n);
        }
    }

    normed.resize(n);
    matrices.normalise(estimate, normed.data());
    float f[3 * SPECEE_K_MAX];
    float top = -INFINITY;
    for (int32_t i = 0; i < k; ++i) {
        f[i] = matrices.capped(specee_dot(normed.data(), head_rows.data() + (size_t) i * n, n) + constants[i]);
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

    hidden_units = predictor.b1;
    for (int32_t j = 0; j < 3 * k; ++j) {
        const float * w = predictor.w1.data() + (size_t) j * predictor.n_hidden;
        for (int32_t i = 0; i < predictor.n_hidden; ++i) {
            hidden_units[i] += f[j] * w[i];
        }
    }
    for (float & u : hidden_units) {
        u = std::max(u, 0.0f);
    }
    float logit = predictor.b2;
    for (int32_t i = 0; i < predictor.n_hidden; ++i) {
        logit += hidden_units[i] * predictor.w2[i];
    }
    return 1.0f / (1.0f + std::exp(-logit));
}

void specee_exit_weights::margin(float * logits, llama_token * best, float * lead) const {
    const size_t n = shortlist.tokens.size();
    for (size_t i = 0; i < n; ++i) {
        logits[i] = matrices.capped(logits[i] + shortlist.constants[i]);
    }
    size_t first  = 0;
    float  top    = -INFINITY;
    float  second = -INFINITY;
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

bool specee_rows::can_probe(const specee_row & r, int32_t k) const {
    // not of an earlier depth: what was seen there says nothing of a row whose K/V were propagated since
    return r.layer >= 0 && r.layer == r.depth && r.lens_layer == r.layer && exit_weights->predictors[r.layer].k == k;
}

void specee_rows::probe_row(specee_row & r, const llama_token * candidates, float * score, float * features) {
    const specee_predictor & predictor = exit_weights->predictors[r.layer];
    float *                  before    = probs.data() + place(r) * SPECEE_K_MAX;
    if (r.n_probed != predictor.k) {
        std::fill_n(before, predictor.k, 1.0f / predictor.k);
        r.n_probed = predictor.k;
    }
    *score = exit_weights->score(predictor, estimate(r), candidates, before, features);
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_rows_probe(specee_rows * rows, int32_t n, const int32_t * ids, int32_t k, const llama_token * candidates,
                          float * scores, float * features) {
    return specee_entry(rows, [&] {
        if (rows->level < SPECEE_LEVEL_EXITS) {
            return rows->fail_level();
        }
        if (!specee_given(ids, candidates, scores)) {
            return (int32_t) SPECEE_INVALID;
        }
        if (n < 1 || n > rows->n_kept || k < 1 || k > SPECEE_K_MAX || !rows->are_tokens(n * k, candidates)) {
            return specee_fail(SPECEE_INVALID, "no row, or no such candidate");
        }
        for (int32_t i = 0; i < n; ++i) { // all of them before the first is probed
            const specee_row * r = rows->find(ids[i]);
            if (r == nullptr) {
                return specee_fail(SPECEE_INVALID, "no such row");
            }
            if (!rows->can_probe(*r, k)) {
                return specee_fail(SPECEE_INVALID, "no predictor for " + std::to_string(k) + " candidates at layer " +
                                                       std::to_string(r->depth));
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
    if (r == nullptr || !r->in_flight || rows.slots[r->slot].chain.back() != r->id) {
        return specee_fail(SPECEE_INVALID, "only the last row of the principal chain runs to an exit");
    }
    if (k < 0 || k > SPECEE_K_MAX || n_layers < 0) {
        return specee_fail(SPECEE_INVALID, "too many candidates");
    }
    if (k > 0 ? !rows.are_tokens(k, candidates) : rows.exit_weights->shortlist.tokens.empty()) {
        return specee_fail(SPECEE_INVALID, "no such candidate, or no shortlist is set");
    }
    int32_t depth = r->depth;
    for (int32_t i = 0; i < n_layers; ++i) {
        if (layers[i] <= depth || layers[i] >= rows.n_layer) {
            return specee_fail(SPECEE_INVALID, "exit layers must ascend from beyond the row's depth");
        }
        depth = layers[i];
        if (rows.exit_weights->lenses[depth].down == nullptr ||
            (k > 0 && rows.exit_weights->predictors[depth].k != k)) {
            return specee_fail(SPECEE_INVALID, "no lens, or no predictor for " + std::to_string(k) +
                                                   " candidates, is set for layer " + std::to_string(depth));
        }
    }
    return SPECEE_OK;
}

int32_t specee_rows_run_to_exit(specee_rows * rows, int32_t id, int32_t n_layers, const int32_t * layers, int32_t k,
                                const llama_token * candidates, float threshold, float * scores, llama_token * best) {
    return specee_entry(rows, [&] {
        if (rows->level < SPECEE_LEVEL_EXITS) {
            return rows->fail_level();
        }
        if ((n_layers > 0 && !specee_given(layers, scores)) ||
            !(k > 0 ? specee_given(candidates) : specee_given(best))) {
            return (int32_t) SPECEE_INVALID;
        }
        specee_row * r      = rows->find(id);
        int32_t      status = check_exits(*rows, r, n_layers, layers, k, candidates);
        for (int32_t i = 0; status == SPECEE_OK && i < n_layers; ++i) {
            status = rows->advance_deferred(rows->slots[r->slot], layers[i], false,
                                            k == 0 ? specee_read_last::scores : specee_read_last::estimate);
            if (status != SPECEE_OK) {
                return status;
            }
            if (k == 0) {
                rows->exit_weights->margin(rows->shortlist_logits.data(), best, scores + i);
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
