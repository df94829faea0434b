// Fuzz target: a GGUF file whose header is the input, and whose weights are zeros, is opened, and a token is computed.
//
// models/gguf_header.py stands before llama.cpp, so an input counts when that check passes it: see native/README.md.
#include "specee.h"

#include <cstdio>
#include <cstdlib>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

static constexpr size_t WEIGHTS = 1 << 20; // bytes after the header

static void compute_token(llama_model * model, const char * path) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx                = 64;
    params.n_batch = params.n_ubatch = 8;
    params.n_threads = params.n_threads_batch = 1;
    params.flash_attn_type                    = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context * ctx                       = llama_init_from_model(model, params);
    if (ctx == nullptr) {
        return;
    }
    if (specee_rows * rows = specee_rows_init(ctx, path, 4, 4, -1, 0, nullptr)) {
        llama_token best = 0;
        if (specee_rows_forward(rows, 0, 0) >= 0) {
            specee_rows_greedy(rows, 0, 0, nullptr, &best);
        }
        specee_rows_free(rows);
    }
    llama_free(ctx);
}

static void read_text(const llama_model * model) {
    const llama_vocab * vocab = llama_model_get_vocab(model);
    llama_token         tokens[64];
    char                text[64];
    int32_t             n = 0;
    specee_tokenize(vocab, 11, "Hello, w 1!", 1, 1, 64, tokens, &n);
    for (llama_token t = 0; t < llama_vocab_n_tokens(vocab) && t < 200; ++t) {
        specee_token_piece(vocab, t, 0, sizeof(text), text, &n);
    }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    static const bool quiet = [] {
        llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
        llama_backend_init();
        return true;
    }();
    (void) quiet;
    const int         file = memfd_create("model", 0);
    const std::string path = "/proc/self/fd/" + std::to_string(file);
    if (file < 0 || write(file, data, size) != (ssize_t) size || ftruncate(file, (off_t) (size + WEIGHTS)) != 0) {
        std::abort();
    }
    llama_model_params params = llama_model_default_params();
    if (llama_model * model = llama_model_load_from_file(path.c_str(), params)) {
        read_text(model);
        if (llama_vocab_n_tokens(llama_model_get_vocab(model)) > 0) {
            compute_token(model, path.c_str());
        }
        llama_model_free(model);
    }
    close(file);
    return 0;
}
