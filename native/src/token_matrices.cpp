#include "token_matrices.h"

#include "rows.h"
#include "vector_math.h"

#include "ggml.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

// [n] of a tensor of the model, as floats; empty where there is none.
static std::vector<float> values_of(const ggml_tensor * t, float factor) {
    std::vector<float> values(t == nullptr ? 0 : ggml_nelements(t));
    if (t != nullptr && t->type == GGML_TYPE_F32) {
        ggml_backend_tensor_get(t, values.data(), 0, ggml_nbytes(t));
    } else if (t != nullptr) {
        std::vector<uint8_t> data(ggml_nbytes(t));
        ggml_backend_tensor_get(t, data.data(), 0, data.size());
        ggml_get_type_traits(t->type)->to_float(data.data(), values.data(), (int64_t) values.size());
    }
    for (float & value : values) {
        value *= factor;
    }
    return values;
}

// All files of a model: llama.cpp finds the others by the name of the first one, too.
static std::vector<std::string> parts_of(const std::string & path) {
    std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf(gguf_init_from_file(path.c_str(), { true, nullptr }),
                                                             gguf_free);
    if (gguf == nullptr) {
        throw std::runtime_error("cannot read " + path);
    }
    const int64_t key = gguf_find_key(gguf.get(), "split.count");
    const int     n   = key < 0 || gguf_get_kv_type(gguf.get(), key) != GGUF_TYPE_UINT16 ?
                            1 :
                            gguf_get_val_u16(gguf.get(), key);
    if (n < 2) {
        return { path };
    }
    std::vector<char> name(path.size() + 32);
    if (llama_split_prefix(name.data(), name.size(), path.c_str(), 0, n) <= 0) {
        throw std::runtime_error(path + " does not have the name of a first part");
    }
    const std::string        prefix = name.data();
    std::vector<std::string> paths;
    for (int i = 0; i < n; ++i) {
        llama_split_path(name.data(), name.size(), prefix.c_str(), i, n);
        paths.emplace_back(name.data());
    }
    return paths;
}

specee_token_matrices::specee_token_matrices(const std::string & path, int32_t n_embd, int32_t n_vocab,
                                             const specee_lm_head & head) :
    n_embd(n_embd), n_vocab(n_vocab), centred(head.centred), eps(head.eps), cap(head.cap), scale(head.scale),
    norm(values_of(head.norm, 1)), norm_bias(values_of(head.norm_bias, 1)),
    bias(values_of(head.bias, head.bias_scale)) {
    const std::vector<std::string> paths = parts_of(path);
    lm_head                              = find_matrix(paths, ggml_get_name(head.matrix));
    embeddings                           = find_matrix(paths, "token_embd.weight");
}

specee_token_matrices::matrix specee_token_matrices::find_matrix(const std::vector<std::string> & paths,
                                                                 const char *                     name) {
    for (const std::string & path : paths) {
        ggml_context *                                      meta = nullptr;
        std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf(gguf_init_from_file(path.c_str(), { true, &meta }),
                                                                 gguf_free);
        std::unique_ptr<ggml_context, decltype(&ggml_free)> tensors(meta, ggml_free);
        const int64_t id = gguf == nullptr ? -1 : gguf_find_tensor(gguf.get(), name);
        if (id < 0) {
            continue;
        }
        const ggml_tensor * t = ggml_get_tensor(meta, name);
        if (t->ne[0] != n_embd || t->ne[1] != n_vocab || ggml_nelements(t) != (int64_t) n_embd * n_vocab) {
            throw std::runtime_error(std::string(name) + " has an unexpected shape");
        }
        part p;
        p.file          = std::make_unique<llama_file>(path.c_str(), "rb");
        p.mapping       = std::make_unique<llama_mmap>(p.file.get(), 0);
        const size_t at = gguf_get_data_offset(gguf.get()) + gguf_get_tensor_offset(gguf.get(), id);
        if (at + ggml_nbytes(t) > p.mapping->size()) {
            throw std::runtime_error(path + " is truncated at " + name);
        }
        matrix m;
        m.type     = t->type;
        m.data     = static_cast<const uint8_t *>(p.mapping->addr()) + at;
        m.row_size = ggml_row_size(t->type, t->ne[0]);
        parts.push_back(std::move(p));
        return m;
    }
    throw std::runtime_error(paths.front() + " lacks " + name);
}

void specee_token_matrices::read_row(const matrix & from, llama_token token, float * out) const {
    const uint8_t * row = from.data + (size_t) token * from.row_size;
    if (from.type == GGML_TYPE_F32) {
        std::memcpy(out, row, n_embd * sizeof(float));
    } else {
        ggml_get_type_traits(from.type)->to_float(row, out, n_embd);
    }
}

static void take_off_mean(float * v, int32_t n) {
    float sum = 0;
    for (int32_t i = 0; i < n; ++i) {
        sum += v[i];
    }
    for (int32_t i = 0; i < n; ++i) {
        v[i] -= sum / n;
    }
}

float specee_token_matrices::head_row(llama_token token, float * out) const {
    read_row(lm_head, token, out);
    float constant = bias.empty() ? 0.0f : bias[token];
    if (!norm_bias.empty()) {
        constant += scale * specee_dot(out, norm_bias.data(), n_embd);
    }
    for (int32_t i = 0; i < n_embd; ++i) {
        out[i] *= norm.empty() ? scale : scale * norm[i];
    }
    if (centred) { // so that a state's mean changes no product
        take_off_mean(out, n_embd);
    }
    return constant;
}

void specee_token_matrices::embedding_row(llama_token token, float * out) const {
    read_row(embeddings, token, out);
}

void specee_token_matrices::normalise(const float * state, float * out) const {
    std::copy_n(state, n_embd, out);
    if (centred) {
        take_off_mean(out, n_embd);
    }
    const float inverse = specee_inverse_rms(out, n_embd, eps);
    for (int32_t i = 0; i < n_embd; ++i) {
        out[i] *= inverse;
    }
}

float specee_token_matrices::capped(float logit) const {
    return cap == 0 ? logit : cap * std::tanh(logit);
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

// n rows, read one by one.
template <typename F>
static int32_t read_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out, F read) {
    return specee_entry(rows, [&] {
        if (rows->level < SPECEE_LEVEL_EXITS) {
            return rows->fail_level();
        }
        if (!rows->are_tokens(n, tokens)) {
            return specee_fail(SPECEE_INVALID, "no such token");
        }
        if (!specee_given(out)) {
            return (int32_t) SPECEE_INVALID;
        }
        for (int32_t i = 0; i < n; ++i) {
            read(*rows->token_matrices, i, out + (size_t) i * rows->n_embd);
        }
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_embedding_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out) {
    return read_rows(rows, n, tokens, out, [&](const specee_token_matrices & matrices, int32_t i, float * row) {
        matrices.embedding_row(tokens[i], row);
    });
}

int32_t specee_head_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out,
                         float * constants) {
    return read_rows(rows, n, tokens, out, [&](const specee_token_matrices & matrices, int32_t i, float * row) {
        const float constant = matrices.head_row(tokens[i], row);
        if (constants != nullptr) {
            constants[i] = constant;
        }
    });
}

int32_t specee_head_shape(const specee_rows * rows, int32_t * centred, float * cap) {
    return specee_entry(rows, [&] {
        if (rows->level < SPECEE_LEVEL_EXITS) {
            return rows->fail_level();
        }
        if (!specee_given(centred) || !specee_given(cap)) {
            return (int32_t) SPECEE_INVALID;
        }
        *centred = rows->token_matrices->centred;
        *cap     = rows->token_matrices->cap;
        return (int32_t) SPECEE_OK;
    });
}
