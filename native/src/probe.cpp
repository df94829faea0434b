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

specee_probe::specee_probe(specee_head & head) : head(head), x(2 * head.n_embd), y(head.n_embd) {}

void specee_probe::multiply(const specee_q8 & m, const float * v, float * out) {
    const auto * traits   = ggml_get_type_traits_cpu(GGML_TYPE_Q8_0);
    const size_t row_size = ggml_row_size(GGML_TYPE_Q8_0, m.n_cols);
    quantized.resize(row_size);
    traits->from_float(v, quantized.data(), m.n_cols);
    for (int32_t i = 0; i < m.n_rows; ++i) {
        traits->vec_dot(m.n_cols, out + i, 0, m.data.data() + i * row_size, 0, quantized.data(), 0, 1);
    }
}

// Hidden states have a few channels that dwarf the others of their block: what rounding to int8 loses is multiplied
// too.
void specee_probe::multiply_hidden(const specee_q8 & m, const float * v, float * out) {
    multiply(m, v, out);
    lost.resize(m.n_cols);
    ggml_get_type_traits(GGML_TYPE_Q8_0)->to_float(quantized.data(), lost.data(), m.n_cols);
    for (int32_t i = 0; i < m.n_cols; ++i) {
        lost[i] = v[i] - lost[i];
    }
    remainder.resize(m.n_rows);
    multiply(m, lost.data(), remainder.data());
    for (int32_t i = 0; i < m.n_rows; ++i) {
        out[i] += remainder[i];
    }
}

float specee_probe::apply(const specee_lens & lens, const float * hidden) {
    const int32_t n = head.n_embd;
    const float   s = inverse_rms(hidden, n, head.eps);
    for (int32_t i = 0; i < n; ++i) {
        x[i] = hidden[i] * s;
    }
    z.resize(lens.down.n_rows);
    multiply_hidden(lens.down, x.data(), z.data());
    multiply(lens.up, z.data(), y.data());
    for (int32_t i = 0; i < n; ++i) {
        y[i] += lens.bias[i];
    }
    return inverse_rms(y.data(), n, head.eps);
}

bool specee_probe::final_state(int32_t layer, int32_t n_layer, const float * hidden, float * out) {
    if (layer == n_layer) {
        std::copy_n(hidden, head.n_embd, out);
        return true;
    }
    auto lens = lenses.find(layer);
    if (lens == lenses.end()) {
        return false;
    }
    apply(lens->second, hidden);
    std::copy_n(y.data(), head.n_embd, out);
    return true;
}

float specee_probe::score(const specee_lens & lens, const specee_mlp & mlp, const float * hidden,
                          const llama_token * candidates, float * probs, float * features) {
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

    const float scale = apply(lens, hidden);
    float       f[3 * SPECEE_K_MAX];
    float       top = -INFINITY;
    for (int32_t i = 0; i < k; ++i) {
        f[i] = dot(y.data(), sliced.data() + (size_t) i * n, n) * scale +
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

void specee_probe::margin(const specee_lens & lens, const specee_shortlist & list, const float * hidden,
                          llama_token * best, float * lead) {
    const float  scale = apply(lens, hidden); // leaves z = down x
    const size_t n     = list.tokens.size();
    scores.resize(n);
    multiply(list.up, z.data(), scores.data());
    size_t first  = 0;
    float  top    = -INFINITY;
    float  second = -INFINITY;
    for (size_t i = 0; i < n; ++i) {
        scores[i] = (scores[i] + list.bias[i]) * scale;
        if (scores[i] > top) {
            second = top;
            top    = scores[i];
            first  = i;
        } else if (scores[i] > second) {
            second = scores[i];
        }
    }
    float sum = 0;
    for (size_t i = 0; i < n; ++i) {
        const float d = scores[i] - top;
        sum += d > -20.0f ? std::exp(d) : 0.0f; // the rest is below rounding
    }
    *best = list.tokens[first];
    *lead = (1.0f - std::exp(second - top)) / sum;
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
    z.resize(draft_down.n_rows);
    multiply_hidden(draft_down, x.data(), z.data());
    const size_t n_short = draft.tokens.size();
    scores.resize(n_short);
    multiply(draft.up, z.data(), scores.data());

    // k is small: insertion into a sorted list, nearly always one failed comparison
    float best[SPECEE_K_MAX];
    std::fill_n(best, k, -INFINITY);
    for (size_t i = 0; i < n_short; ++i) {
        const float v = scores[i] + draft.bias[i];
        if (v > best[k - 1]) {
            int32_t j = k - 1;
            for (; j > 0 && best[j - 1] < v; --j) {
                best[j] = best[j - 1];
                out[j]  = out[j - 1];
            }
            best[j] = v;
            out[j]  = draft.tokens[i];
        }
    }
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

static bool is_lens_shape(const specee_rows * rows, int32_t layer, int32_t rank) {
    return layer > 0 && layer < rows->n_layer && rank > 0 && rank % 32 == 0;
}

static bool are_tokens(const specee_rows * rows, int32_t n, const llama_token * tokens) {
    return std::all_of(tokens, tokens + n, [&](llama_token t) { return t >= 0 && t < rows->n_vocab; });
}

int32_t specee_lens_set(specee_rows * rows, int32_t layer, int32_t rank, const void * down, const void * up,
                        const float * bias) {
    if (rows->kv == nullptr || !is_lens_shape(rows, layer, rank)) {
        return specee_fail(SPECEE_INVALID, "a lens needs a layer inside the model and a rank that is a multiple of 32");
    }
    specee_lens & lens = rows->probe->lenses[layer];
    lens.down.set(rank, rows->n_embd, down);
    lens.up.set(rows->n_embd, rank, up);
    lens.bias.assign(bias, bias + rows->n_embd);
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

int32_t specee_margin_set(specee_rows * rows, int32_t layer, int32_t n_short, const llama_token * tokens,
                          const void * up, const float * bias) {
    auto lens = rows->probe->lenses.find(layer);
    if (lens == rows->probe->lenses.end() || n_short < 2 || !are_tokens(rows, n_short, tokens)) {
        return specee_fail(SPECEE_INVALID,
                           "a margin rule needs a lens at its layer and a shortlist of this vocabulary");
    }
    specee_shortlist & list = rows->probe->margins[layer];
    list.tokens.assign(tokens, tokens + n_short);
    list.up.set(n_short, lens->second.down.n_rows, up);
    list.bias.assign(bias, bias + n_short);
    return SPECEE_OK;
}

int32_t specee_draft_set(specee_rows * rows, int32_t rank, const void * down, int32_t n_short,
                         const llama_token * tokens, const void * up, const float * bias) {
    if (rank <= 0 || rank % 32 != 0 || n_short < SPECEE_K_MAX || !are_tokens(rows, n_short, tokens)) {
        return specee_fail(SPECEE_INVALID,
                           "a draft head needs a rank that is a multiple of 32 and a shortlist of this vocabulary");
    }
    specee_probe & probe = *rows->probe;
    probe.draft_down.set(rank, 2 * rows->n_embd, down);
    probe.draft.tokens.assign(tokens, tokens + n_short);
    probe.draft.up.set(n_short, rank, up);
    probe.draft.bias.assign(bias, bias + n_short);
    return SPECEE_OK;
}

int32_t specee_rows_probe(specee_rows * rows, llama_seq_id seq, llama_pos pos, int32_t k,
                          const llama_token * candidates, float * score, float * features) {
    specee_sequence & s = rows->sequence(seq);
    if (!rows->kept(s, pos) || !are_tokens(rows, k, candidates)) {
        return specee_fail(SPECEE_INVALID, "no such row or candidate");
    }
    auto & row  = rows->row(s, pos);
    auto   lens = rows->probe->lenses.find(row.layer);
    auto   mlp  = rows->probe->predictors.find(row.layer);
    if (lens == rows->probe->lenses.end() || mlp == rows->probe->predictors.end() || mlp->second.k != k) {
        return specee_fail(SPECEE_INVALID, "no predictor for " + std::to_string(k) + " candidates at layer " +
                                               std::to_string(row.layer));
    }
    float * probs = s.probs.data() + (size_t) (pos % rows->ring) * SPECEE_K_MAX;
    if (!row.probed) {
        std::fill_n(probs, k, 1.0f / k);
        row.probed = true;
    }
    *score = rows->probe->score(lens->second, mlp->second, rows->hidden(s, pos), candidates, probs, features);
    return SPECEE_OK;
}

int32_t specee_rows_margin(specee_rows * rows, llama_seq_id seq, llama_pos pos, llama_token * best, float * margin) {
    specee_sequence & s = rows->sequence(seq);
    if (!rows->kept(s, pos)) {
        return specee_fail(SPECEE_INVALID, "no such row");
    }
    const int32_t layer = rows->row(s, pos).layer;
    auto          lens  = rows->probe->lenses.find(layer);
    auto          list  = rows->probe->margins.find(layer);
    if (lens == rows->probe->lenses.end() || list == rows->probe->margins.end()) {
        return specee_fail(SPECEE_INVALID, "no margin rule at layer " + std::to_string(layer));
    }
    rows->probe->margin(lens->second, list->second, rows->hidden(s, pos), best, margin);
    return SPECEE_OK;
}

int32_t specee_rows_draft(specee_rows * rows, llama_seq_id seq, llama_pos pos, llama_token token, int32_t k,
                          llama_token * out) {
    specee_sequence & s = rows->sequence(seq);
    if (k < 1 || k > SPECEE_K_MAX || rows->probe->draft.tokens.empty() || token < 0 || token >= rows->n_vocab) {
        return specee_fail(SPECEE_INVALID, "no draft head is set, or too many candidates are asked for");
    }
    if (!rows->kept(s, pos - 1) || rows->row(s, pos - 1).layer < 0) {
        return specee_fail(SPECEE_INVALID, "the hidden state before this position is not kept");
    }
    std::vector<float> & state = rows->hidden_in;
    state.resize(rows->n_embd);
    if (!rows->probe->final_state(rows->row(s, pos - 1).layer, rows->n_layer, rows->hidden(s, pos - 1), state.data())) {
        return specee_fail(SPECEE_INVALID, "no lens for the state before this position");
    }
    rows->probe->draft_best(state.data(), token, k, out);
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
