// What looks at a stopped row: lens, sliced head, features, predictor; the margin rule; the linear draft head.
#pragma once

#include "head.h"
#include "specee.h"

#include <cstdint>
#include <map>
#include <vector>

#define SPECEE_K_MAX 16

// A matrix of Q8_0 rows, multiplied by a vector that is quantized the same way.
struct specee_q8 {
    int32_t              n_rows = 0;
    int32_t              n_cols = 0;
    std::vector<uint8_t> data; // [n_rows][n_cols] as Q8_0 blocks

    void set(int32_t n_rows, int32_t n_cols, const void * blocks);
};

struct specee_lens {
    specee_q8          down; // [rank][n_embd]
    specee_q8          up;   // [n_embd][rank]
    std::vector<float> bias; // [n_embd]
};

struct specee_mlp {
    int32_t            k        = 0;
    int32_t            n_hidden = 0;
    std::vector<float> w1; // [3k][n_hidden]: transposed, so that the sums run along the hidden units
    std::vector<float> b1;
    std::vector<float> w2;
    float              b2 = 0;
};

struct specee_shortlist {
    std::vector<llama_token> tokens; // [n_short]
    specee_q8                up;     // [n_short][rank]
    std::vector<float>       bias;   // [n_short]
};

struct specee_probe {
    specee_head & head;

    std::map<int32_t, specee_lens>      lenses;     // by layer
    std::map<int32_t, specee_mlp>       predictors; // by layer
    std::map<int32_t, specee_shortlist> margins;    // by layer
    specee_q8                           draft_down; // [rank][2 n_embd]
    specee_shortlist                    draft;

    explicit specee_probe(specee_head & head);

    // The last layer's output as the lens of `layer` sees it, [n_embd]; false without such a lens.
    bool final_state(int32_t layer, int32_t n_layer, const float * hidden, float * out);

    // probs: the candidates' probabilities at this row's previous probe, replaced by the present ones.
    float score(const specee_lens & lens, const specee_mlp & mlp, const float * hidden, const llama_token * candidates,
                float * probs, float * features);

    void margin(const specee_lens & lens, const specee_shortlist & list, const float * hidden, llama_token * best,
                float * lead);

    void draft_best(const float * final_state, llama_token token, int32_t k, llama_token * out);

  private:
    // scratch, reused
    std::vector<float>       x, y, z, lost, remainder, scores, hidden_units;
    std::vector<uint8_t>     quantized;
    std::vector<llama_token> sliced_tokens; // the candidates whose head rows are in `sliced`
    std::vector<float>       sliced;        // [k][n_embd]

    void  multiply(const specee_q8 & matrix, const float * v, float * out);
    void  multiply_hidden(const specee_q8 & matrix, const float * v, float * out);
    float apply(const specee_lens & lens, const float * hidden); // y = h'; returns 1/rms(h') of the final norm
};
