// What calibration has learned of the exit layers, and what is computed from it of a row there: the exit predictor's
// score, and the margin rule's lead.
#pragma once

#include "device_states.h"
#include "specee.h"
#include "token_matrices.h"

#include "ggml-cpp.h"

#include <cstdint>
#include <vector>

// The tensors of a lens, for the graphs that end at its layer; in the memory of the device that computes that layer.
struct specee_lens {
    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buffer;

    ggml_tensor * down = nullptr; // [rank][n_embd]
    ggml_tensor * up   = nullptr; // [n_embd][rank], null when the lens is square
    ggml_tensor * bias = nullptr; // [n_embd]
};

struct specee_predictor {
    int32_t            k        = 0;
    int32_t            n_hidden = 0;
    std::vector<float> w1; // [3k][n_hidden]: transposed, so that the sums run along the hidden units
    std::vector<float> b1;
    std::vector<float> w2;
    float              b2 = 0;
};

// Rows of the LM head of frequent tokens, for the graphs that score them.
struct specee_shortlist {
    std::vector<llama_token> tokens;    // [n_short]
    std::vector<float>       constants; // [n_short] of their logits, see specee_token_matrices
    // [1 + devices] of [n_short][n_embd]: the first one for CPUs; null where no layer is computed
    std::vector<specee_device_tensor> up;

    ggml_tensor * at(int32_t device) const { return up[1 + device].tensor; }
};

struct specee_exit_weights {
    const specee_token_matrices & matrices;

    std::vector<specee_lens>      lenses;     // [n_layer + 1], `down` is null where none is set
    std::vector<specee_predictor> predictors; // [n_layer + 1], k is 0 where none is set
    specee_shortlist              shortlist;

    specee_exit_weights(const specee_token_matrices & matrices, int32_t n_layer);

    // estimate: h'. probs: the candidates' probabilities at this row's previous probe, replaced by the present ones.
    float score(const specee_predictor & predictor, const float * estimate, const llama_token * candidates,
                float * probs, float * features);

    // From the products of the shortlist's rows [n_short], which become logits: the best token, and its lead in
    // probability over the second.
    void margin(float * logits, llama_token * best, float * lead) const;

  private:
    // scratch, reused
    std::vector<float>       hidden_units;
    std::vector<llama_token> head_tokens; // the candidates whose rows of the LM head are in `head_rows`
    std::vector<float>       head_rows;   // [k][n_embd]
    std::vector<float>       constants;   // [k] of their logits
    std::vector<float>       normed;      // [n_embd] the estimate after the final norm
};
