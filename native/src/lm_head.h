// How a model makes logits of its final hidden state: a norm, the LM head's matrix, and what changes logits afterwards.
// Read off the graph that llama.cpp builds, so that no architecture is listed anywhere.
#pragma once

struct ggml_tensor;

// logit = cap tanh(x), or x itself where cap is 0; x = scale (row . n) + bias_scale bias; n is the state divided by its
// rms, or with `centred` by its deviation after the mean was taken off, times `norm`, plus `norm_bias`.
struct specee_lm_head {
    bool                centred    = false;
    float               eps        = 0;       // beneath the root
    const ggml_tensor * norm       = nullptr; // [n_embd] or null
    const ggml_tensor * norm_bias  = nullptr; // [n_embd] or null
    const ggml_tensor * matrix     = nullptr; // [n_embd, n_vocab]
    const ggml_tensor * bias       = nullptr; // [n_vocab] or null
    float               scale      = 1;
    float               bias_scale = 1;
    float               cap        = 0;
};

// False where `logits` are computed from `state` in another way.
bool specee_read_lm_head(const ggml_tensor * logits, const ggml_tensor * state, specee_lm_head & head);
