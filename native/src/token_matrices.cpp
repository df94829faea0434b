#include "token_matrices.h"

#include "rows.h"

#include "ggml.h"

#include <cstring>
#include <stdexcept>

// A file of the model, and what its header says.
struct specee_token_matrices::part {
    const std::string                                   path;
    llama_file                                          file;
    llama_mmap                                          mapping;
    ggml_context *                                      meta = nullptr;
    std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf;
    std::unique_ptr<ggml_context, decltype(&ggml_free)> tensors;

    explicit part(const std::string & path) :
        path(path), file(path.c_str(), "rb"), mapping(&file, 0),
        gguf(gguf_init_from_file(path.c_str(), { /*.no_alloc =*/true, /*.ctx =*/&meta }), gguf_free),
        tensors(meta, ggml_free) {
        if (gguf == nullptr) {
            throw std::runtime_error("cannot read " + path);
        }
    }

    // The tensor's bytes, or null where it is in another part.
    const uint8_t * find(const char * name) const {
        const int64_t id = gguf_find_tensor(gguf.get(), name);
        if (id < 0) {
            return nullptr;
        }
        const size_t at = gguf_get_data_offset(gguf.get()) + gguf_get_tensor_offset(gguf.get(), id);
        if (at + ggml_nbytes(ggml_get_tensor(meta, name)) > mapping.size()) {
            throw std::runtime_error(path + " is truncated at " + name);
        }
        return static_cast<const uint8_t *>(mapping.addr()) + at;
    }
};

// The other files of a split model, which llama.cpp finds by the name of the first one, too.
static std::vector<std::string> other_parts(const gguf_context * first, const std::string & path) {
    std::vector<std::string> found;
    const int64_t            key   = gguf_find_key(first, "split.count");
    const int32_t            count = key < 0 ? 1 : gguf_get_val_u16(first, key);
    std::vector<char>        name(path.size() + 32);
    if (count > 1 && llama_split_prefix(name.data(), name.size(), path.c_str(), 0, count) == 0) {
        throw std::runtime_error(path + " does not have the name of a first part");
    }
    const std::string prefix = name.data();
    for (int32_t i = 1; i < count; ++i) {
        llama_split_path(name.data(), name.size(), prefix.c_str(), i, count);
        found.emplace_back(name.data());
    }
    return found;
}

specee_token_matrices::~specee_token_matrices() = default;

specee_token_matrices::specee_token_matrices(const std::string & path, int32_t n_embd, int32_t n_vocab, float eps) :
    n_embd(n_embd), n_vocab(n_vocab), eps(eps) {
    if (path.empty()) {
        return;
    }
    parts.push_back(std::make_unique<part>(path));
    for (const std::string & other : other_parts(parts[0]->gguf.get(), path)) {
        parts.push_back(std::make_unique<part>(other));
    }

    const ggml_tensor * shape = nullptr; // of what was found last
    auto                find  = [&](const char * name) -> const uint8_t * {
        for (const auto & one : parts) {
            if (const uint8_t * data = one->find(name)) {
                shape = ggml_get_tensor(one->meta, name);
                return data;
            }
        }
        return nullptr;
    };
    auto find_matrix = [&](const char * name) {
        matrix m;
        m.data = find(name);
        if (m.data != nullptr) {
            if (shape->ne[0] != n_embd || shape->ne[1] != n_vocab) {
                throw std::runtime_error(std::string(name) + " has an unexpected shape");
            }
            m.type     = shape->type;
            m.row_size = ggml_row_size(shape->type, shape->ne[0]);
        }
        return m;
    };

    embeddings = find_matrix("token_embd.weight");
    lm_head    = find_matrix("output.weight");
    if (lm_head.data == nullptr) {
        lm_head = embeddings; // tied
    }
    const uint8_t * norm_data = find("output_norm.weight");
    if (embeddings.data == nullptr || norm_data == nullptr || shape->type != GGML_TYPE_F32) {
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
