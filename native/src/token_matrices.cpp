#include "token_matrices.h"

#include "rows.h"

#include "ggml.h"

#include <cstring>
#include <stdexcept>

specee_token_matrices::specee_token_matrices(const std::string & path, int32_t n_embd, int32_t n_vocab, float eps) :
    n_embd(n_embd), n_vocab(n_vocab), eps(eps) {
    if (path.empty()) {
        return;
    }
    file    = std::make_unique<llama_file>(path.c_str(), "rb");
    mapping = std::make_unique<llama_mmap>(file.get(), 0);

    ggml_context *                                      meta   = nullptr;
    gguf_init_params                                    params = { /*.no_alloc =*/true, /*.ctx =*/&meta };
    std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf(gguf_init_from_file(path.c_str(), params), gguf_free);
    if (gguf == nullptr) {
        throw std::runtime_error("cannot read " + path);
    }
    std::unique_ptr<ggml_context, decltype(&ggml_free)> tensors(meta, ggml_free);

    auto find = [&](const char * name) -> const uint8_t * {
        const int64_t id = gguf_find_tensor(gguf.get(), name);
        if (id < 0) {
            return nullptr;
        }
        const size_t at = gguf_get_data_offset(gguf.get()) + gguf_get_tensor_offset(gguf.get(), id);
        if (at + ggml_nbytes(ggml_get_tensor(meta, name)) > mapping->size()) {
            throw std::runtime_error(path + " is truncated at " + name);
        }
        return static_cast<const uint8_t *>(mapping->addr()) + at;
    };
    auto find_matrix = [&](const char * name) {
        matrix m;
        m.data = find(name);
        if (m.data != nullptr) {
            const ggml_tensor * t = ggml_get_tensor(meta, name);
            if (t->ne[0] != n_embd || t->ne[1] != n_vocab) {
                throw std::runtime_error(std::string(name) + " has an unexpected shape");
            }
            m.type     = t->type;
            m.row_size = ggml_row_size(t->type, t->ne[0]);
        }
        return m;
    };

    embeddings = find_matrix("token_embd.weight");
    lm_head    = find_matrix("output.weight");
    if (lm_head.data == nullptr) {
        lm_head = embeddings; // tied
    }
    const uint8_t * norm_data = find("output_norm.weight");
    if (embeddings.data == nullptr || norm_data == nullptr ||
        ggml_get_tensor(meta, "output_norm.weight")->type != GGML_TYPE_F32) {
        throw std::runtime_error(path + " lacks token_embd.weight or output_norm.weight");
    }
    norm.resize(n_embd);
    std::memcpy(norm.data(), norm_data, n_embd * sizeof(float));
    if (const uint8_t * bias_data = find("output.bias")) {
        bias.resize(n_vocab);
        std::memcpy(bias.data(), bias_data, n_vocab * sizeof(float));
    }
}

void specee_token_matrices::read_row(const matrix & from, llama_token token, float * out) const {
    const uint8_t * row = from.data + (size_t) token * from.row_size;
    if (from.type == GGML_TYPE_F32) {
        std::memcpy(out, row, n_embd * sizeof(float));
    } else {
        ggml_get_type_traits(from.type)->to_float(row, out, n_embd);
    }
}

void specee_token_matrices::head_row(llama_token token, float * out) const {
    read_row(lm_head, token, out);
    for (int32_t i = 0; i < n_embd; ++i) {
        out[i] *= norm[i];
    }
}

void specee_token_matrices::embedding_row(llama_token token, float * out) const {
    read_row(embeddings, token, out);
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

// n rows, read one by one.
template <typename F>
static int32_t read_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out, F read) {
    return specee_entry(rows, [&] {
        if (rows->kv == nullptr) {
            return rows->fail_whole_rows_only();
        }
        if (!rows->are_tokens(n, tokens)) {
            return specee_fail(SPECEE_INVALID, "no such token");
        }
        if (!specee_given(out)) {
            return (int32_t) SPECEE_INVALID;
        }
        for (int32_t i = 0; i < n; ++i) {
            read(*rows->token_matrices, tokens[i], out + (size_t) i * rows->n_embd);
        }
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_embedding_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out) {
    return read_rows(rows, n, tokens, out, [](const specee_token_matrices & matrices, llama_token token, float * row) {
        matrices.embedding_row(token, row);
    });
}

int32_t specee_head_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out) {
    return read_rows(rows, n, tokens, out, [](const specee_token_matrices & matrices, llama_token token, float * row) {
        matrices.head_row(token, row);
    });
}
