#include "draft_head.h"

#include "rows.h"
#include "vector_math.h"

#include "ggml-cpu.h"

#include <algorithm>
#include <cmath>

void specee_q8::set(int32_t rows, int32_t cols, const void * blocks) {
    n_rows             = rows;
    n_cols             = cols;
    const auto * bytes = static_cast<const uint8_t *>(blocks);
    data.assign(bytes, bytes + rows * ggml_row_size(GGML_TYPE_Q8_0, cols));
}

void specee_draft_head::multiply(const specee_q8 & m, const float * v, float * out) {
    const auto * traits   = ggml_get_type_traits_cpu(GGML_TYPE_Q8_0);
    const size_t row_size = ggml_row_size(GGML_TYPE_Q8_0, m.n_cols);
    quantized.resize(row_size);
    traits->from_float(v, quantized.data(), m.n_cols);
    for (int32_t i = 0; i < m.n_rows; ++i) {
        traits->vec_dot(m.n_cols, out + i, 0, m.data.data() + i * row_size, 0, quantized.data(), 0, 1);
    }
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

void specee_draft_head::embed(const specee_token_matrices & matrices, llama_token token, float * out) {
    const int32_t n = matrices.n_embd;
    matrices.embedding_row(token, out);
    const float inverse = specee_inverse_rms(out, n, matrices.eps);
    for (int32_t i = 0; i < n; ++i) {
        out[i] *= inverse;
    }
}

void specee_draft_head::best_guesses(const specee_token_matrices & matrices, const float * final_state,
                                     llama_token token, int32_t k, llama_token * out) {
    const int32_t n = matrices.n_embd;
    x.resize(2 * n);
    embed(matrices, token, x.data() + n);
    matrices.normalise(final_state, x.data());
    z.resize(down.n_rows);
    multiply(down, x.data(), z.data());
    scores.resize(tokens.size());
    multiply(up, z.data(), scores.data());
    best_tokens(tokens, scores.data(), bias.data(), k, out);
}

bool specee_draft_head::best_guesses(const specee_token_matrices & matrices, const specee_device & device,
                                     int32_t place, bool by_lens, llama_token token, int32_t k, llama_token * out,
                                     specee_transfers & transfers) {
    const auto [found, is_new] = on_devices.try_emplace({ device.dev, by_lens }, device, *this, matrices, by_lens);
    if (!found->second.is_ready) {
        return false;
    }
    int32_t guesses[SPECEE_K_MAX];
    x.resize(2 * matrices.n_embd);
    embed(matrices, token, x.data());
    found->second.best_guesses(place, x.data(), guesses, transfers);
    std::transform(guesses, guesses + k, out, [&](int32_t i) { return tokens[i]; });
    return true;
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_draft_set(specee_rows * rows, int32_t rank, const void * down, int32_t n_short,
                         const llama_token * tokens, const void * up, const float * bias) {
    return specee_entry(rows, [&] {
        if (rows->level < SPECEE_LEVEL_EXITS) {
            return rows->fail_level();
        }
        if (rank <= 0 || rank % 32 != 0 || n_short < SPECEE_K_MAX || !rows->are_tokens(n_short, tokens)) {
            return specee_fail(SPECEE_INVALID,
                               "a draft head needs a rank that is a multiple of 32 and a shortlist of this vocabulary");
        }
        if (!specee_given(down, up, bias)) {
            return (int32_t) SPECEE_INVALID;
        }
        specee_draft_head head;
        head.down.set(rank, 2 * rows->n_embd, down);
        head.tokens.assign(tokens, tokens + n_short);
        head.up.set(n_short, rank, up);
        head.bias.assign(bias, bias + n_short);
        rows->draft_head = std::move(head);
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_rows_draft(specee_rows * rows, int32_t id, llama_token token, int32_t k, llama_token * out) {
    return specee_entry(rows, [&] {
        if (rows->level < SPECEE_LEVEL_EXITS) {
            return rows->fail_level();
        }
        if (k < 1 || k > SPECEE_K_MAX || rows->draft_head.tokens.empty() || !rows->are_tokens(1, &token)) {
            return specee_fail(SPECEE_INVALID,
                               "no draft head is set, too many candidates are asked for, or no such token");
        }
        if (!specee_given(out)) {
            return (int32_t) SPECEE_INVALID;
        }
        specee_row * r = rows->find(id);
        if (r == nullptr || !rows->has_final_state(*r)) {
            return specee_fail(SPECEE_INVALID, "no such row, or its final state is not known");
        }
        if (!rows->draft_on_device(*r, token, k, out)) {
            rows->draft_head.best_guesses(*rows->token_matrices, rows->final_state(*r), token, k, out);
        }
        return (int32_t) SPECEE_OK;
    });
}
