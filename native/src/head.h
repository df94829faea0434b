// Single rows of a model's LM head and token embeddings, read from its GGUF file: inside llama.cpp these tensors may be
// repacked for the CPU's kernels or live on a device.
#pragma once

#include "gguf.h"
#include "llama.h"

#include "llama-mmap.h"

#include <memory>
#include <string>
#include <vector>

struct specee_head {
    const int32_t n_embd;
    const int32_t n_vocab;
    const float   eps; // of the final norm

    std::vector<float> norm; // [n_embd] weight of the final norm
    std::vector<float> bias; // [n_vocab] of the head, or empty

    // Without a path it has no rows. Throws std::runtime_error when the file cannot be read or lacks a tensor.
    specee_head(const std::string & path, int32_t n_embd, int32_t n_vocab, float eps);

    bool is_open() const { return embd.data != nullptr; }

    void head_row(llama_token token, float * out) const;      // [n_embd], times the final norm's weight
    void embedding_row(llama_token token, float * out) const; // [n_embd]

  private:
    struct rows {
        ggml_type       type     = GGML_TYPE_COUNT;
        const uint8_t * data     = nullptr;
        size_t          row_size = 0;
    };

    std::unique_ptr<llama_file> file;
    std::unique_ptr<llama_mmap> mapping;
    rows                        head;
    rows                        embd;

    void read_row(const rows & from, llama_token token, float * out) const;
};
