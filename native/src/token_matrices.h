// The matrices with a row for each token, LM head and embeddings: single rows of them, read from the model's GGUF file,
// because inside llama.cpp these tensors may be repacked for the CPU's kernels or live on a device. A split model's are
// in any of its files.
#pragma once

#include "gguf.h"
#include "llama.h"

#include "llama-mmap.h"

#include <memory>
#include <string>
#include <vector>

struct specee_token_matrices {
    const int32_t n_embd;
    const int32_t n_vocab;
    const float   eps; // of the final norm

    std::vector<float> norm; // [n_embd] weight of the final norm
    std::vector<float> bias; // [n_vocab] of the LM head, or empty

    // Without a path there are no rows. Throws std::runtime_error when the file cannot be read or lacks a tensor.
    specee_token_matrices(const std::string & path, int32_t n_embd, int32_t n_vocab, float eps);
    ~specee_token_matrices();

    void head_row(llama_token token, float * out) const;      // [n_embd], times the final norm's weight
    void embedding_row(llama_token token, float * out) const; // [n_embd]

  private:
    struct matrix {
        ggml_type       type     = GGML_TYPE_COUNT;
        const uint8_t * data     = nullptr;
        size_t          row_size = 0;
    };

    struct part;
    std::vector<std::unique_ptr<part>> parts;
    matrix                             lm_head;
    matrix                             embeddings;

    void read_row(const matrix & from, llama_token token, float * out) const;
};
