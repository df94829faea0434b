// What is computed of a row at an exit layer: lens, sliced head, features, predictor; the margin rule; and the linear
// draft head.
#pragma once

#include "head.h"
#include "specee.h"

#include "ggml-cpp.h"

#include <cstdint>
#include <vector>

#define SPECEE_K_MAX 16

// A matrix of Q8_0 rows, multiplied by a vector that is quantized the same way.
struct specee_q8 {
    int32_t              n_rows = 0;
    int32_t              n_cols = 0;
    std::vector<uint8_t> data; // [n_rows][n_cols] as Q8_0 blocks

    void set(int32_t n_rows, int32_t n_cols, const void * blocks);
};

// The tensors of a lens, for the graphs that end at its layer.
struct specee_lens {
    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buffer;

    ggml_tensor * down = nullptr; // [rank][n_embd]
    ggml_tensor * up   = nullptr; // [n_embd][rank], null when the lens is square
    ggml_tensor * bias = nullptr; // [n_embd]
};

struct specee_mlp {
    int32_t            k        = 0;
    int32_t            n_hidden = 0;
    std::vector<float> w1; // [3k][n_hidden]: transposed, so that the sums run along the hidden units
    std::vector<float> b1;
    std::vector<float> w2;
    float              b2 = 0;
};

// Rows of the LM head of frequent tokens, for the graphs that score them.
struct specee_shortlist {
    std::vector<llama_token> tokens; // [n_short]
    ggml_context_ptr         ctx;
    ggml_backend_buffer_ptr  buffer;
    ggml_tensor *            up = nullptr; // [n_short][n_embd]
};

struct specee_draft {
    specee_q8                down;   // [rank][2 n_embd]
    std::vector<llama_token> tokens; // [n_short]
    specee_q8                up;     // [n_short][rank]
    std::vector<float>       bias;   // [n_short]
};

struct specee_probe {
    specee_head & head;

    std::vector<specee_lens> lenses;     // [n_layer + 1], `down` is null where none is set
    std::vector<specee_mlp>  predictors; // [n_layer + 1], k is 0 where none is set
    specee_shortlist         shortlist;
    specee_draft             draft;

    specee_probe(specee_head & head, int32_t n_layer);

    // estimate: h'. probs: the candidates' probabilities at this row's previous probe, replaced by the present ones.
    float score(const specee_mlp & mlp, const float * estimate, const llama_token * candidates, float * probs,
                float * features);

    // From the logits of the shortlist [n_short]: the best token and its lead in probability over the second.
    void margin(const float * logits, llama_token * best, float * lead) const;

    void draft_best(const float * final_state, llama_token token, int32_t k, llama_token * out);

  private:
    // scratch, reused
    std::vector<float>       x, z, scores, hidden_units;
    std::vector<uint8_t>     quantized;
    std::vector<llama_token> sliced_tokens; // the candidates whose head rows are in `sliced`
    std::vector<float>       sliced;        // [k][n_embd]

    void multiply(const specee_q8 & matrix, const float * v, float * out);
};
