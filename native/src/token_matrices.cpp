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

specee_token_matrices::specee_token_matrices(const std::string & path, int32_t n_embd, int32_t n_vocab,
                                             const specee_lm_head & head) :
    n_embd(n_embd), n_vocab(n_vocab), centred(head.centred), eps(head.eps), cap(head.cap), scale(head.scale),
    norm(values_of(head.norm, 1)), norm_bias(values_of(head.norm_bias, 1)),
    bias(values_of(head.bias, head.bias_scale)) {
    parts.push_back(std::make_unique<part>(path));
    for (const std::string & other : other_parts(parts[0]->gguf.get(), path)) {
        parts.push_back(std::make_unique<part>(other));
    }
    lm_head    = find_matrix(ggml_get_name(head.matrix));
    embeddings = find_matrix("token_embd.weight");
    for (const auto & each : parts) { // vocabularies are large
        each->gguf.reset();
        each->tensors.reset();
    }
}

specee_token_matrices::matrix specee_token_matrices::find_matrix(const char * name) const {
    for (const auto & each : parts) {
        const int64_t id = gguf_find_tensor(each->gguf.get(), name);
        if (id < 0) {
            continue;
        }
        const ggml_tensor * t  = ggml_get_tensor(each->meta, name);
        const size_t        at = gguf_get_data_offset(each->gguf.get()) + gguf_get_tensor_offset(each->gguf.get(), id);
        if (t->ne[0] != n_embd || ggml_nelements(t) != (int64_t) n_embd * n_vocab) {
            throw std::runtime_error(std::string(name) + " has an unexpected shape");
        }
        if (at + ggml_nbytes(t) > each->mapping.size()) {
            throw std::runtime_error(each->path + " is truncated at " + name);
        }
        matrix m;
        m.type     = t->type;
        m.data     = static_cast<const uint8_t *>(each->mapping.addr()) + at;
        m.row_size = ggml_row_size(t->type, t->ne[0]);
        return m;
    }
    throw std::runtime_error("its file lacks " + std::string(name));
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
