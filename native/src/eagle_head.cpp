// EAGLE-3 heads (Li et al., 2025) in llama.cpp's format: one layer that sees a token and the target's features before
// it.
//
// Position p of the head's own cache holds the pair (token p + 1, state p). The state is fc(features p) where the
// target has computed position p, else what the head itself made of the pair before (see llama.cpp's
// common/speculative.cpp).
#include "error.h"
#include "specee.h"

#include "llama-context.h"
#include "llama-ext.h"
#include "llama-model.h"

#include <algorithm>
#include <vector>

struct specee_eagle_head {
    llama_context & ctx;
    const int32_t   n_embd;
    const int32_t   n_features; // of one position: all target layers'
    llama_pos       length = 0; // pairs in the cache
    // [n_ctx][n_embd] what the head made of each pair: the next state where the target has none
    std::vector<float> states;
    std::vector<float> inputs;             // [n][n_embd] of the present batch
    bool               has_logits = false; // of the last pair in the cache

    explicit specee_eagle_head(llama_context & ctx) :
        ctx(ctx), n_embd(ctx.get_model().hparams.n_embd), n_features(ctx.get_model().hparams.n_embd_inp_enc()),
        states((size_t) ctx.n_ctx() * n_embd) {
        llama_set_embeddings_nextn(&ctx, true, /*masked*/ false);
    }

    void roll_back(llama_pos to) {
        llama_memory_seq_rm(ctx.get_memory(), 0, to, -1);
        has_logits = has_logits && to == length;
        length     = to;
    }

    // A scheduler that got no memory is never used again.
    template <typename F> int32_t computed(F && compute) {
        specee_need_memory(0);
        int32_t            status = -1; // by an exception too
        specee_scope_guard anew([&] { ctx.sched_need_reserve |= status < 0; });
        status = compute();
        return status;
    }

    // fc(features) of n positions into `inputs`.
    int32_t encode(int32_t n, const float * features) {
        llama_batch batch = {};
        batch.n_tokens    = n;
        batch.embd        = const_cast<float *>(features);
        if (computed([&] { return ctx.encode(batch); }) != 0) {
            return specee_fail(SPECEE_FAILED, "the EAGLE-3 head could not take the model's hidden states");
        }
        ctx.synchronize();
        const float * made = llama_get_embeddings_nextn(&ctx);
        inputs.assign(made, made + (size_t) n * n_embd);
        return SPECEE_OK;
    }

    // n pairs (tokens, inputs from `at` on) after those in the cache; logits are the last one's, if wanted.
    int32_t decode(int32_t n, const llama_token * tokens, int32_t at, bool want_logits) {
        std::vector<llama_pos>      pos(n);
        std::vector<int32_t>        n_seq_id(n, 1);
        llama_seq_id                seq = 0;
        std::vector<llama_seq_id *> seq_id(n, &seq);
        std::vector<int8_t>         output(n, want_logits);
        for (int32_t i = 0; i < n; ++i) {
            pos[i] = length + i;
        }
        llama_batch        batch  = { n,
                                      const_cast<llama_token *>(tokens),
                                      inputs.data() + (size_t) at * n_embd,
                                      pos.data(),
                                      n_seq_id.data(),
                                      seq_id.data(),
                                      output.data() };
        const llama_pos    before = length;
        specee_scope_guard back([&] {
            if (length == before) {
                roll_back(before);
                has_logits = false;
            }
        });
        if (computed([&] { return ctx.decode(batch); }) != 0) {
            return specee_fail(SPECEE_FAILED, "the EAGLE-3 head could not compute");
        }
        ctx.synchronize();
        const float * made = llama_get_embeddings_nextn(&ctx);
        std::copy(made, made + (size_t) n * n_embd, states.begin() + (size_t) length * n_embd);
        length += n;
        has_logits = want_logits;
        return SPECEE_OK;
    }
};

specee_eagle_head * specee_eagle_head_init(llama_context * ctx) {
    return specee_guard(ctx, (specee_eagle_head *) nullptr, [&]() -> specee_eagle_head * {
        if (ctx->get_model().arch != LLM_ARCH_EAGLE3) {
            specee_fail(SPECEE_INVALID, "the file is no EAGLE-3 head");
            return nullptr;
        }
        return new specee_eagle_head(*ctx);
    });
}

void specee_eagle_head_free(specee_eagle_head * head) {
    delete head;
}

int32_t specee_eagle_head_read(specee_eagle_head * head, int32_t n, const llama_token * tokens,
                               const float * features) {
    return specee_entry(head, [&] {
        if (n < 1 || n > (int32_t) head->ctx.n_ubatch() || tokens == nullptr || features == nullptr) {
            return specee_fail(SPECEE_INVALID, "a batch of tokens with their features is needed");
        }
        if (head->length + n > (llama_pos) head->ctx.n_ctx()) {
            return specee_fail(SPECEE_NO_SPACE, "the EAGLE-3 head's window is full");
        }
        const llama_pos    before = head->length;
        specee_scope_guard back([&] {
            if (head->length != before + n) {
                head->roll_back(before);
            }
        });
        head->has_logits = false;
        int32_t status   = head->encode(n, features);
        // of its rows a batch gives logits for all or for none
        if (status == SPECEE_OK && n > 1) {
            status = head->decode(n - 1, tokens, 0, false);
        }
        return status == SPECEE_OK ? head->decode(1, tokens + n - 1, n - 1, true) : status;
    });
}

int32_t specee_eagle_head_extend(specee_eagle_head * head, llama_token token) {
    return specee_entry(head, [&] {
        if (head->length < 1) {
            return specee_fail(SPECEE_INVALID, "an EAGLE-3 head begins with the model's hidden states");
        }
        if (head->length >= (llama_pos) head->ctx.n_ctx()) {
            return specee_fail(SPECEE_NO_SPACE, "the EAGLE-3 head's window is full");
        }
        const float * last = head->states.data() + (size_t) (head->length - 1) * head->n_embd;
        head->inputs.assign(last, last + head->n_embd);
        return head->decode(1, &token, 0, true);
    });
}

int32_t specee_eagle_head_roll_back(specee_eagle_head * head, llama_pos length) {
    return specee_entry(head, [&] {
        if (length < 0 || length > head->length) {
            return specee_fail(SPECEE_INVALID, "there are not so many tokens");
        }
        head->roll_back(length);
        return (int32_t) SPECEE_OK;
    });
}

const float * specee_eagle_head_logits(specee_eagle_head * head) {
    return specee_guard(head, (const float *) nullptr, [&]() -> const float * {
        if (!head->has_logits) {
            specee_fail(SPECEE_INVALID, "there are no logits of the last token");
            return nullptr;
        }
        return head->ctx.get_logits_ith(-1);
    });
}
