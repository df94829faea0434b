// The C ABI of rows in flight: specee.h.
#include "rows.h"

#include <algorithm>
#include <string>

// Architectures whose layer ends are proven by tests/native. Adding one: see native/README.md.
static bool is_supported(llm_arch arch) {
    switch (arch) {
        case LLM_ARCH_LLAMA:
        case LLM_ARCH_QWEN2: return true;
        default: return false;
    }
}

int32_t specee_model_supported(const llama_model * model) {
    if (!is_supported(model->arch)) {
        return specee_fail(SPECEE_UNSUPPORTED, std::string("the architecture '") + llm_arch_name(model->arch) +
                                                   "' does not run in layer ranges yet");
    }
    if (model->hparams.swa_type != LLAMA_SWA_TYPE_NONE) {
        return specee_fail(SPECEE_UNSUPPORTED, "sliding-window attention does not run in layer ranges yet");
    }
    if (model->hparams.n_embd % 32 != 0) {
        return specee_fail(SPECEE_UNSUPPORTED, "the model's width is not a multiple of 32");
    }
    return SPECEE_OK;
}

specee_rows * specee_rows_init(llama_context * ctx, const char * model_path, int32_t n_rows_max,
                               int32_t graph_cache_max) {
    if (ctx == nullptr || n_rows_max < 1 || graph_cache_max < 1) {
        specee_fail(SPECEE_INVALID, "a context, at least one row and one graph are needed");
        return nullptr;
    }
    // models that cannot run in layer ranges run whole rows, without exits
    const bool ranges = specee_model_supported(&ctx->get_model()) == SPECEE_OK;
    auto *     kv     = ranges ? dynamic_cast<llama_kv_cache *>(ctx->get_memory()) : nullptr;
    try {
        auto rows =
            std::make_unique<specee_rows>(*ctx, kv, std::min<int32_t>(n_rows_max, ctx->n_batch()), graph_cache_max);
        rows->head  = std::make_unique<specee_head>(kv != nullptr ? model_path : "", rows->n_embd, rows->n_vocab,
                                                    ctx->get_model().hparams.f_norm_rms_eps);
        rows->probe = std::make_unique<specee_probe>(*rows->head);
        return rows.release();
    } catch (const std::exception & e) {
        specee_fail(SPECEE_FAILED, e.what());
        return nullptr;
    }
}

void specee_rows_free(specee_rows * rows) {
    delete rows;
}

int32_t specee_rows_prefill(specee_rows * rows, llama_seq_id seq, llama_pos pos, int32_t n, const llama_token * tokens,
                            int32_t want_logits) {
    return rows->whole(seq, pos, n, tokens, want_logits != 0);
}

int32_t specee_rows_advance(specee_rows * rows, llama_seq_id seq, int32_t n, const llama_pos * pos,
                            const llama_token * tokens, int32_t end, uint32_t flags) {
    return rows->advance(seq, n, pos, tokens, end, flags);
}

int32_t specee_rows_lens_head(specee_rows * rows, llama_seq_id seq, llama_pos pos) {
    return rows->lens_head(seq, pos);
}

const float * specee_rows_logits(specee_rows * rows, int32_t i) {
    if (i < 0 || i >= rows->n_logits) {
        specee_fail(SPECEE_INVALID, "no such row of logits");
        return nullptr;
    }
    return rows->logits + (size_t) i * rows->n_vocab;
}

int32_t specee_rows_depth(const specee_rows * rows, llama_seq_id seq, llama_pos pos) {
    const specee_sequence * s = rows->find(seq);
    if (s == nullptr || pos < 0 || pos >= s->length) {
        return -1;
    }
    return pos < s->settled ? rows->n_layer : s->rows[pos % rows->ring].depth;
}

const float * specee_rows_hidden(const specee_rows * rows, llama_seq_id seq, llama_pos pos) {
    const specee_sequence * s = rows->find(seq);
    if (s == nullptr || !rows->kept(*s, pos) || s->rows[pos % rows->ring].layer < 0) {
        specee_fail(SPECEE_INVALID, "the hidden state of this row is not kept");
        return nullptr;
    }
    return s->hidden.data() + (size_t) (pos % rows->ring) * rows->n_embd;
}

int32_t specee_rows_roll_back(specee_rows * rows, llama_seq_id seq, llama_pos pos) {
    return rows->roll_back(seq, pos);
}

llama_pos specee_rows_length(const specee_rows * rows, llama_seq_id seq) {
    const specee_sequence * s = rows->find(seq);
    return s == nullptr ? 0 : s->length;
}

void specee_rows_cancel(specee_rows * rows) {
    rows->cancelled.store(true, std::memory_order_relaxed);
}

void specee_rows_resume(specee_rows * rows) {
    rows->cancelled.store(false, std::memory_order_relaxed);
}

int32_t specee_rows_threads(specee_rows * rows) {
    return rows->threads.current();
}

void specee_rows_fix_threads(specee_rows * rows, int32_t n) {
    rows->threads.fix(n);
}

void specee_rows_limit_single(specee_rows * rows, int32_t n) {
    rows->threads.limit_single(n);
}

int32_t specee_rows_stop_next(specee_rows * rows) {
    return rows->threads.stop_next();
}
