#include "head.h"

#include "ggml.h"

#include <cstring>
#include <stdexcept>

specee_head::specee_head(const std::string & path, int32_t n_embd, int32_t n_vocab, float eps) :
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
    auto find_rows = [&](const char * name) {
        rows r;
        r.data = find(name);
        if (r.data != nullptr) {
            const ggml_tensor * t = ggml_get_tensor(meta, name);
            if (t->ne[0] != n_embd || t->ne[1] != n_vocab) {
                throw std::runtime_error(std::string(name) + " has an unexpected shape");
            }
            r.type     = t->type;
            r.row_size = ggml_row_size(t->type, t->ne[0]);
        }
        return r;
    };

    embd = find_rows("token_embd.weight");
    head = find_rows("output.weight");
    if (head.data == nullptr) {
        head = embd; // tied
    }
    const uint8_t * norm_data = find("output_norm.weight");
    if (embd.data == nullptr || norm_data == nullptr ||
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

void specee_head::read_row(const rows & from, llama_token token, float * out) const {
    const uint8_t * row = from.data + (size_t) token * from.row_size;
    if (from.type == GGML_TYPE_F32) {
        std::memcpy(out, row, n_embd * sizeof(float));
    } else {
        ggml_get_type_traits(from.type)->to_float(row, out, n_embd);
    }
}

void specee_head::head_row(llama_token token, float * out) const {
    read_row(head, token, out);
    for (int32_t i = 0; i < n_embd; ++i) {
        out[i] *= norm[i];
    }
}

void specee_head::embedding_row(llama_token token, float * out) const {
    read_row(embd, token, out);
}
