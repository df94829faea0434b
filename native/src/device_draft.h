// The linear draft head on a device that has the final states: the host gives a token's embedding and gets the best
// guesses.
#pragma once

#include "device_states.h"
#include "specee.h"

#include "ggml-cpp.h"

struct specee_draft_head;
struct specee_token_matrices;

class specee_device_draft {
  public:
    // The device cannot do it, or has no memory: `is_ready` is false.
    specee_device_draft(const specee_device & device, const specee_draft_head & head,
                        const specee_token_matrices & matrices, bool by_lens);

    bool is_ready = false;

    // `place`: of the state or estimate in the device's memory; embedding: [n_embd], normalised. The places of the best
    // SPECEE_K_MAX guesses in the shortlist, best first. Throws where the device fails.
    void best_guesses(int32_t place, const float * embedding, int32_t * guesses, specee_transfers & transfers);

  private:
    ggml_backend_t          backend;
    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr weights;
    ggml_gallocr_ptr        memory; // of what is computed
    ggml_cgraph *           gf        = nullptr;
    ggml_tensor *           at        = nullptr; // [1]
    ggml_tensor *           embedding = nullptr; // [n_embd]
    ggml_tensor *           best      = nullptr; // [2 SPECEE_K_MAX] scores in no order, and their places
};
