// The C ABI of slots, rows and control: specee.h.
#include "rows.h"
#include "small_batch/small_batch.h"

#include <algorithm>
#include <string>

// Architectures whose layer ends are proven by tests/native. Adding one: see native/README.md.
static constexpr llm_arch ARCHITECTURES[] = { LLM_ARCH_LLAMA, LLM_ARCH_QWEN2 };

static int32_t check_architecture(llm_arch arch, const char * name) {
    if (std::find(std::begin(ARCHITECTURES), std::end(ARCHITECTURES), arch) == std::end(ARCHITECTURES)) {
        return specee_fail(SPECEE_UNSUPPORTED,
                           std::string("layers of the architecture '") + name + "' cannot be skipped yet");
    }
    return SPECEE_OK;
}

int32_t specee_architecture_supported(const char * arch) {
    return specee_entry(arch, [&] { return check_architecture(llm_arch_from_string(arch), arch); });
}

int32_t specee_model_supported(const llama_model * model) {
    return specee_entry(model, [&] {
        const int32_t status = check_architecture(model->arch, llm_arch_name(model->arch));
        if (status != SPECEE_OK) {
            return status;
        }
        if (model->hparams.swa_type != LLAMA_SWA_TYPE_NONE) {
            return specee_fail(SPECEE_UNSUPPORTED, "layers with sliding-window attention cannot be skipped yet");
        }
        if (model->hparams.n_embd % 32 != 0) {
            return specee_fail(SPECEE_UNSUPPORTED, "the model's width is not a multiple of 32");
        }
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_max_equal_rows(void) {
    return SPECEE_SMALL_BATCH;
}

specee_rows * specee_rows_init(llama_context * ctx, const char * model_path, int32_t n_rows_max,
                               int32_t graph_cache_max) {
    return specee_guard((specee_rows *) nullptr, [&]() -> specee_rows * {
        if (ctx == nullptr || model_path == nullptr || n_rows_max < 1 || graph_cache_max < 1) {
            specee_fail(SPECEE_INVALID, "a context, a file, at least one row and one graph are needed");
            return nullptr;
        }
        const llama_model & model  = ctx->get_model();
        const bool          ranges = specee_model_supported(&model) == SPECEE_OK;
        auto *              kv     = ranges ? dynamic_cast<llama_kv_cache *>(ctx->get_memory()) : nullptr;
        if (kv != nullptr && kv->get_n_stream() > 1) {
            kv = nullptr;
        }
        auto rows =
            std::make_unique<specee_rows>(*ctx, kv, std::min<int32_t>(n_rows_max, ctx->n_batch()), graph_cache_max);
        rows->head  = std::make_unique<specee_head>(kv != nullptr ? model_path : "", rows->n_embd, rows->n_vocab,
                                                    model.hparams.f_norm_rms_eps);
        rows->probe = std::make_unique<specee_probe>(*rows->head, rows->n_layer);
        return rows.release();
    });
}

void specee_rows_free(specee_rows * rows) {
    delete rows;
}

// ---- slots ---------------------------------------------------------------------------------------------------------

int32_t specee_rows_prefill(specee_rows * rows, llama_seq_id slot, int32_t n, const llama_token * tokens,
                            int32_t want_logits) {
    return specee_entry(rows, [&] { return rows->prefill(slot, n, tokens, want_logits != 0); });
}

int32_t specee_rows_append(specee_rows * rows, llama_seq_id slot, int32_t parent, llama_token token) {
    return specee_entry(rows, [&] { return rows->append(slot, parent, token); });
}

int32_t specee_rows_commit(specee_rows * rows, int32_t id) {
    return specee_entry(rows, [&] { return rows->commit(id); });
}

int32_t specee_rows_roll_back(specee_rows * rows, llama_seq_id slot, llama_pos length) {
    return specee_entry(rows, [&] { return rows->roll_back(slot, length); });
}

llama_pos specee_rows_length(const specee_rows * rows, llama_seq_id slot) {
    return specee_entry(rows, [&] {
        const specee_slot * s = rows->find_slot(slot);
        return s == nullptr ? (llama_pos) SPECEE_INVALID : s->length;
    });
}

int32_t specee_rows_in_flight(const specee_rows * rows, llama_seq_id slot) {
    return specee_entry(rows, [&] {
        const specee_slot * s = rows->find_slot(slot);
        return s == nullptr ? (int32_t) SPECEE_INVALID : (int32_t) s->in_flight.size();
    });
}

int32_t specee_rows_tip(const specee_rows * rows, llama_seq_id slot) {
    return specee_guard(rows, (int32_t) -1, [&] {
        const specee_slot * s = rows->find_slot(slot);
        const specee_row *  r = s == nullptr ? nullptr : rows->find(s->last);
        return r != nullptr && r->pos == s->length - 1 ? r->id : -1;
    });
}

// ---- rows ----------------------------------------------------------------------------------------------------------

int32_t specee_rows_advance(specee_rows * rows, int32_t n, const int32_t * ids, int32_t end, uint32_t flags) {
    return specee_entry(rows, [&] { return rows->advance(n, ids, end, flags, false); });
}

int32_t specee_rows_complete(specee_rows * rows, llama_seq_id slot, uint32_t flags) {
    return specee_entry(rows, [&] {
        const specee_slot * s = rows->find_slot(slot);
        if (s == nullptr || (flags & ~(uint32_t) SPECEE_LOGITS) != 0) {
            return specee_fail(SPECEE_INVALID, "no such slot, or no such flag");
        }
        return rows->advance_deferred(*s, rows->n_layer, (flags & SPECEE_LOGITS) != 0, false);
    });
}

int32_t specee_rows_lens_head(specee_rows * rows, int32_t id) {
    return specee_entry(rows, [&] {
        if (rows->kv == nullptr) {
            return rows->needs_ranges();
        }
        specee_row * r = rows->find(id);
        return r == nullptr ? specee_fail(SPECEE_INVALID, "no such row") : rows->lens_head(*r);
    });
}

int32_t specee_rows_depth(const specee_rows * rows, int32_t id) {
    return specee_guard(rows, (int32_t) -1, [&] {
        const specee_row * r = rows->find(id);
        return r == nullptr ? specee_fail(-1, "no such row") : r->depth;
    });
}

const float * specee_rows_hidden(const specee_rows * rows, int32_t id) {
    return specee_guard(rows, (const float *) nullptr, [&]() -> const float * {
        const specee_row * r = rows->find(id);
        if (r == nullptr || r->layer < 0) {
            specee_fail(SPECEE_INVALID, "the hidden state of this row is not kept");
            return nullptr;
        }
        return rows->hidden(*r);
    });
}

const float * specee_rows_logits(specee_rows * rows, int32_t i) {
    return specee_guard(rows, (const float *) nullptr, [&]() -> const float * {
        if (i < 0 || i >= rows->n_logits) {
            specee_fail(SPECEE_INVALID, "no such row of logits");
            return nullptr;
        }
        return rows->logits + (size_t) i * rows->n_vocab;
    });
}

// ---- control -------------------------------------------------------------------------------------------------------

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

void specee_rows_limit_single_row(specee_rows * rows, int32_t n) {
    rows->threads.limit_single_row(n);
}

int32_t specee_rows_stop_next(specee_rows * rows) {
    return rows->threads.stop_next();
}
