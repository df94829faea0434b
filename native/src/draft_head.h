// The linear draft head: guesses the token after next from a final state and the next token.
#pragma once

#include "device_draft.h"
#include "token_matrices.h"

#include <cstdint>
#include <map>
#include <vector>

// A matrix of Q8_0 rows, multiplied by a vector that is quantized the same way.
struct specee_q8 {
    int32_t              n_rows = 0;
    int32_t              n_cols = 0;
    std::vector<uint8_t> data; // [n_rows][n_cols] as Q8_0 blocks

    void set(int32_t n_rows, int32_t n_cols, const void * blocks);
};

struct specee_draft_head {
    specee_q8                down;   // [rank][2 n_embd]
    std::vector<llama_token> tokens; // [n_short], empty: none is set
    specee_q8                up;     // [n_short][rank]
    std::vector<float>       bias;   // [n_short]

    // The k best guesses for the token after `token`, which was chosen from `final_state`.
    void best_guesses(const specee_token_matrices & matrices, const float * final_state, llama_token token, int32_t k,
                      llama_token * out);
    // The same, by the device that has the final state, at this place of its states or, `by_lens`, of its estimates.
    // False: it cannot.
    bool best_guesses(const specee_token_matrices & matrices, const specee_device & device, int32_t place, bool by_lens,
                      llama_token token, int32_t k, llama_token * out, specee_transfers & transfers);

  private:
    // scratch, reused
    std::vector<float>   x, z, scores;
    std::vector<uint8_t> quantized;

    std::map<std::pair<ggml_backend_dev_t, bool>, specee_device_draft> on_devices; // by `by_lens`, too

    void embed(const specee_token_matrices & matrices, llama_token token, float * out); // [n_embd], normalised
    void multiply(const specee_q8 & matrix, const float * v, float * out);
};
