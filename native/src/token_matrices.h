// The matrices with a row for each token, LM head and embeddings: single rows of them, read from the model's GGUF file,
// because inside llama.cpp these tensors may be repacked for the CPU's kernels or live on a device. A split model's are
// in any of its files.
#pragma once

#include "gguf.h"
#include "llama.h"
#include "lm_head.h"

#include "llama-mmap.h"

#include <memory>
#include <string>
#include <vector>

struct specee_token_matrices {
    const int32_t n_embd;
    const int32_t n_vocab;
    const bool    centred; // of the final norm: it takes off the mean
    const float   eps;     // of the final norm
    const float   cap;     // of logits: cap tanh(x); 0: none

    // Of the model's file, or the first part of it. Throws std::runtime_error when it cannot be read or lacks a tensor.
    specee_token_matrices(const std::string & path, int32_t n_embd, int32_t n_vocab, const specee_lm_head & head);
    ~specee_token_matrices();

    // [n_embd], times the final norm's weight and what scales logits. A token's logit before `cap` is the product of
    // this with the normalised state, plus the number that is returned.
    float head_row(llama_token token, float * out) const;
    void  embedding_row(llama_token token, float * out) const; // [n_embd]

    // [n_embd] as the final norm does it, without its weight.
    void normalise(const float * state, float * out) const;
    // A logit of a head row's product with the normalised state.
    float capped(float logit) const;

  private:
    struct part;

    struct matrix {
        ggml_type       type     = GGML_TYPE_COUNT;
        const uint8_t * data     = nullptr;
        size_t          row_size = 0;
    };

    std::vector<std::unique_ptr<part>> parts;
    matrix                             lm_head;
    matrix                             embeddings;
    float                              scale;
    std::vector<float>                 norm;      // [n_embd] weight of the final norm, or empty
    std::vector<float>                 norm_bias; // [n_embd] or empty
    std::vector<float>                 bias;      // [n_vocab] of logits, or empty

    matrix find_matrix(const char * name) const;
    void   read_row(const matrix & from, llama_token token, float * out) const;
};
