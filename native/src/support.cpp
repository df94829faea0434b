// What this library can do: with which models, with which weights, and with how many rows at once.
#include "ggml-backend.h"
#include "llama-model.h"
#include "proof.h"
#include "rows.h"
#include "small_batch/small_batch.h"

#include <string>

int32_t specee_architecture_level(const char * arch) {
    return specee_guard((int32_t) SPECEE_FAILED, [&] {
        if (arch == nullptr) {
            return specee_fail(SPECEE_INVALID, "no architecture was given");
        }
        const llm_arch known = llm_arch_from_string(arch);
        if (known == LLM_ARCH_UNKNOWN) {
            specee_set_error("llama.cpp does not know this architecture");
            return (int32_t) SPECEE_LEVEL_DENSE;
        }
        if (llm_arch_is_recurrent(known) || llm_arch_is_hybrid(known)) {
            specee_set_error(SPECEE_RECURRENT);
            return (int32_t) SPECEE_LEVEL_DENSE;
        }
        if (llm_arch_is_diffusion(known)) {
            specee_set_error(SPECEE_NOT_CAUSAL);
            return (int32_t) SPECEE_LEVEL_DENSE;
        }
        specee_set_error("");
        return (int32_t) SPECEE_LEVEL_EXITS;
    });
}

int32_t specee_tokenize(const llama_vocab * vocab, int32_t n_text, const char * text, int32_t add_special,
                        int32_t parse_special, int32_t capacity, llama_token * tokens, int32_t * n_tokens) {
    return specee_entry(vocab, [&] {
        if (n_text < 0 || capacity < 0 || !specee_given(text, n_tokens) || (capacity > 0 && !specee_given(tokens))) {
            return specee_fail(SPECEE_INVALID, "a text, and where its tokens go, is needed");
        }
        const int32_t n = llama_tokenize(vocab, text, n_text, tokens, capacity, add_special != 0, parse_special != 0);
        if (n == INT32_MIN) {
            return specee_fail(SPECEE_INVALID, "the text is too long");
        }
        *n_tokens = n < 0 ? -n : n;
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_token_piece(const llama_vocab * vocab, llama_token token, int32_t special, int32_t capacity, char * text,
                           int32_t * n_bytes) {
    return specee_entry(vocab, [&] {
        if (token < 0 || token >= llama_vocab_n_tokens(vocab)) {
            return specee_fail(SPECEE_INVALID, "no such token");
        }
        if (capacity < 0 || !specee_given(n_bytes) || (capacity > 0 && !specee_given(text))) {
            return specee_fail(SPECEE_INVALID, "where the bytes go is needed");
        }
        const int32_t n = llama_token_to_piece(vocab, token, text, capacity, 0, special != 0);
        *n_bytes        = n < 0 ? -n : n;
        return (int32_t) SPECEE_OK;
    });
}

const char * specee_layer_device(const llama_model * model, int32_t layer) {
    return specee_guard((const char *) nullptr, [&]() -> const char * {
        if (model == nullptr || layer < 0 || layer > llama_model_n_layer(model)) {
            specee_fail(SPECEE_INVALID, "no such layer");
            return nullptr;
        }
        const bool is_head = layer == llama_model_n_layer(model);
        return ggml_backend_dev_name(is_head ? model->dev_output() : model->dev_layer(layer));
    });
}

int32_t specee_max_equal_rows(void) {
    return SPECEE_SMALL_BATCH;
}

int32_t specee_has_kernel(int32_t type, int64_t n_in, int64_t n_out) {
    return specee_guard(0, [&] {
        ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        ggml_backend_reg_t reg = cpu != nullptr ? ggml_backend_dev_backend_reg(cpu) : nullptr;
        void *             has = reg ? ggml_backend_reg_get_proc_address(reg, "specee_has_small_batch") : nullptr;
        if (has == nullptr || type < 0 || type >= GGML_TYPE_COUNT || n_in <= 0 || n_out <= 0) {
            return 0;
        }
        return reinterpret_cast<decltype(&specee_has_small_batch)>(has)(type, n_in, n_out) ? 1 : 0;
    });
}
