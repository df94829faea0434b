// EAGLE-3 heads (Li et al., 2025) in llama.cpp's format: one layer that sees a token and the target's features before
// it.
//
// Position p of the head's own cache holds the pair (token p + 1, state p). The state is fc(features p) where the
// target has computed position p, else what the head itself made of the pair before (see llama.cpp's
// common/speculative.cpp).
//
// llama.cpp builds the graphs; we keep them, one for each number of tokens, where llama_decode would build each anew
// after another one. And we end them ourselves: the LM head sees the last token only, and the probabilities are those
// of the tokens that the head knows, not logits of the whole vocabulary. A device gives the greatest of them alone.
#include "error.h"
#include "rows.h"
#include "specee.h"

#include "llama-context.h"
#include "llama-kv-cache.h"
#include "llama-model.h"

#include <algorithm>
#include <list>
#include <numeric>
#include <optional>

static constexpr size_t SCHED_TENSORS = 64; // for each node of a graph and its scheduler: see specee_rows::need_memory
static constexpr size_t N_GRAPHS      = 20; // that are kept: of both kinds for up to 8 tokens, and a few for more

// A built graph with its own scheduler, so that it keeps its allocation between calls.
struct head_graph {
    llm_graph_type         type = LLM_GRAPH_TYPE_DECODER;
    int32_t                n    = 0;
    ggml_backend_sched_ptr sched;
    llm_graph_result_ptr   result;
    ggml_cgraph *          gf        = nullptr; // null: not built
    ggml_tensor *          states    = nullptr; // [n_embd, n] what is made of each token
    ggml_tensor *          probs     = nullptr; // [n_known] of the next token; of a decoder on the host
    ggml_tensor *          best      = nullptr; // [2] the greatest of them, and where it is; of one on a device
    specee_transfers       transfers = {};      // of one computation
};

static bool is_on_device(const ggml_tensor & weights) {
    ggml_backend_dev_t dev = ggml_backend_buft_get_device(ggml_backend_buffer_get_type(weights.buffer));
    return dev != nullptr && ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_CPU;
}

struct specee_eagle_head {
    llama_context &     ctx;
    llama_kv_cache &    kv;
    const llama_model & model;
    specee_rows &       target;
    const llama_seq_id  slot; // of the target
    const int32_t       n_embd;
    llama_pos           length = 0; // pairs in the cache
    // [n_ctx][n_embd] what the head made of each pair: the next state where the target has none
    std::unique_ptr<float[]> states;
    std::vector<float>       features;      // [n][layers * n_embd of the target] of the present batch
    std::vector<float>       inputs;        // [n][n_embd] of the present batch
    std::vector<float>       probs;         // [n_known] of the token after the last pair, of a head on the host
    int32_t                  best_at   = 0; // which token is likeliest after it, among those that are known
    float                    best_prob = 0;
    bool                     has_best  = false; // this is of the last pair in the cache
    std::vector<int64_t>     known;             // [n_known] the tokens that it knows, empty: all
    std::list<head_graph>    graphs;            // most recently used first

    // of a batch, reused
    std::vector<llama_pos>      pos;
    std::vector<int32_t>        n_seq_id;
    llama_seq_id                seq_id = 0;
    std::vector<llama_seq_id *> seq_ids;
    std::vector<int32_t>        seq_idx;
    std::vector<int8_t>         output;

    specee_eagle_head(llama_context & ctx, llama_kv_cache & kv, specee_rows & target, llama_seq_id slot) :
        ctx(ctx), kv(kv), model(ctx.get_model()), target(target), slot(slot), n_embd(model.hparams.n_embd),
        states(new float[(size_t) ctx.n_ctx() * n_embd]), // pages that nothing is written to take no memory
        pos(ctx.n_ubatch()), n_seq_id(ctx.n_ubatch(), 1), seq_ids(ctx.n_ubatch(), &seq_id), seq_idx(LLAMA_MAX_SEQ, 0),
        output(ctx.n_ubatch(), 1) {
        if (model.d2t != nullptr) {
            known.resize(model.d2t->ne[0]);
            ggml_backend_tensor_get(model.d2t, known.data(), 0, known.size() * sizeof(int64_t));
        }
    }

    bool is_token(llama_token t) const { return t >= 0 && t < (llama_token) model.vocab.n_tokens(); }

    void roll_back(llama_pos to) {
        llama_memory_seq_rm(ctx.get_memory(), 0, to, -1);
        has_best = has_best && to == length;
        length   = to;
    }

    head_graph & graph_of(llm_graph_type type, int32_t n) {
        const auto found =
            std::find_if(graphs.begin(), graphs.end(), [&](const auto & g) { return g.type == type && g.n == n; });
        if (found != graphs.end()) {
            graphs.splice(graphs.begin(), graphs, found);
            return graphs.front();
        }
        if (graphs.size() >= N_GRAPHS) {
            graphs.pop_back();
        }
        const size_t max_nodes = ctx.graph_max_nodes(n);
        specee_need_memory(max_nodes * SCHED_TENSORS * sizeof(ggml_tensor));
        head_graph graph;
        graph.type = type;
        graph.n    = n;
        graph.result.reset(new llm_graph_result(2 * max_nodes)); // with room for a second graph
        graph.sched.reset(ggml_backend_sched_new(ctx.backend_ptrs.data(), ctx.backend_buft.data(),
                                                 ctx.backend_ptrs.size(), max_nodes, false, ctx.cparams.op_offload));
        graphs.push_front(std::move(graph));
        return graphs.front();
    }

    // The nodes up to the states, then norm, LM head and softmax for the last token.
    void end_decoder(head_graph & graph, ggml_cgraph * whole) {
        ggml_context * ctx0 = graph.result->get_ctx();
        ggml_tensor *  x    = graph.states;
        ggml_cgraph *  gf   = ggml_new_graph_custom(ctx0, graph.result->get_max_nodes() / 2, false);
        for (int i = 0; i < ggml_graph_n_nodes(whole); ++i) {
            ggml_build_forward_expand(gf, ggml_graph_node(whole, i));
            if (ggml_graph_node(whole, i) == x) {
                break;
            }
        }
        const ggml_tensor * own    = model.output;
        const ggml_tensor * target = own == nullptr ? llama_get_model(ctx.cparams.ctx_other)->output : nullptr;
        ggml_tensor *       head   = const_cast<ggml_tensor *>(own != nullptr ? own : target);

        x                   = ggml_view_2d(ctx0, x, n_embd, 1, x->nb[1], (graph.n - 1) * x->nb[1]);
        x                   = ggml_mul(ctx0, ggml_rms_norm(ctx0, x, model.hparams.f_norm_rms_eps), model.output_norm);
        ggml_tensor * probs = ggml_soft_max(ctx0, ggml_mul_mat(ctx0, head, x));
        ggml_tensor * made  = probs;
        if (is_on_device(*head)) {
            ggml_tensor * at   = ggml_argmax(ctx0, probs);
            ggml_tensor * best = ggml_get_rows(ctx0, ggml_reshape_2d(ctx0, probs, 1, probs->ne[0]), at);
            made = graph.best = ggml_concat(ctx0, best, ggml_cast(ctx0, at, GGML_TYPE_F32), 0); // exact below 2^24
        } else {
            graph.probs = probs;
        }
        ggml_set_output(made);
        ggml_build_forward_expand(gf, made);
        graph.gf = gf;
    }

    bool build(head_graph & graph, const llm_graph_params & params) {
        graph.gf = nullptr;
        specee_need_memory(0);
        graph.result->reset();
        ggml_backend_sched_reset(ctx.sched.get());
        ggml_cgraph * gf = model.build_graph(params);
        graph.states     = graph.result->get_h_nextn();
        if (gf == nullptr || graph.states == nullptr) {
            return false;
        }
        if (graph.type == LLM_GRAPH_TYPE_DECODER) {
            end_decoder(graph, gf);
        } else {
            graph.gf = gf;
        }
        specee_sources_of sources;
        if (target.has_devices) {
            sources = specee_sources(graph.gf);
        }
        const bool built = ggml_backend_sched_alloc_graph(ctx.sched.get(), graph.gf);
        if (built && target.has_devices) {
            graph.transfers = specee_count_copies(graph.gf, sources);
        }
        return built;
    }

    // What comes of it: one wait for all of it.
    void read(const head_graph & graph, float * made) {
        const auto read = [&](ggml_tensor * t, float * to) {
            specee_read(ctx.sched.get(), t, to, 0, ggml_nbytes(t), target.transfers);
        };
        read(graph.states, made);
        float found[2];
        if (graph.best != nullptr) {
            read(graph.best, found);
        } else if (graph.probs != nullptr) {
            read(graph.probs, probs.data());
        }
        specee_add(target.transfers, graph.transfers);
        ggml_backend_sched_synchronize(ctx.sched.get());
        if (graph.best != nullptr) {
            best_prob = found[0];
            best_at   = (int32_t) found[1];
        } else if (graph.probs != nullptr) {
            const auto best = std::max_element(probs.begin(), probs.end());
            best_prob       = *best;
            best_at         = best - probs.begin();
        }
    }

    // made: [n][n_embd] what is made of each. False where it could not be computed.
    bool compute(llm_graph_type type, int32_t n, const llama_token * tokens, const float * embd, float * made) {
        const int32_t n_threads = specee_rows_threads(&target); // they take turns
        llama_set_n_threads(&ctx, n_threads, n_threads);
        std::iota(pos.begin(), pos.begin() + n, length);
        llama_ubatch ubatch = {};
        ubatch.n_tokens     = n;
        ubatch.n_seq_tokens = 1;
        ubatch.n_seqs       = n;
        ubatch.n_seqs_unq   = 1;
        ubatch.n_pos        = 1;
        ubatch.token        = const_cast<llama_token *>(tokens);
        ubatch.embd         = const_cast<float *>(embd);
        ubatch.pos          = pos.data();
        ubatch.n_seq_id     = n_seq_id.data();
        ubatch.seq_id       = seq_ids.data();
        ubatch.seq_id_unq   = &seq_id;
        ubatch.seq_idx      = seq_idx.data();
        ubatch.output       = output.data();

        std::optional<llama_kv_cache_context> memory; // a pair's cell is its position
        if (type == LLM_GRAPH_TYPE_DECODER) {
            llama_kv_cache::slot_info cells = {};
            cells.resize(1);
            cells.strm[0] = 0;
            cells.idxs[0].assign(pos.begin(), pos.begin() + n);
            memory.emplace(&kv, llama_kv_cache::slot_info_vec_t{ cells }, std::vector<llama_ubatch>{ ubatch });
            memory->apply();
        }

        head_graph &       graph = graph_of(type, n);
        bool               done  = false; // else its scheduler may have got no memory in the middle: never used again
        specee_scope_guard swap_back([&] {
            std::swap(ctx.sched, graph.sched);
            if (!done) {
                graphs.pop_front();
            }
        });
        std::swap(ctx.sched, graph.sched);
        ctx.n_outputs     = n;
        const auto params = ctx.graph_params(graph.result.get(), ubatch, memory ? &*memory : nullptr, type);
        if ((graph.gf != nullptr && graph.result->can_reuse(params)) || build(graph, params)) {
            graph.result->set_inputs(&ubatch);
            probs.resize(graph.probs == nullptr ? probs.size() : graph.probs->ne[0]);
            if (ctx.graph_compute(graph.gf, n > 1) == GGML_STATUS_SUCCESS) {
                read(graph, made);
                done = true;
            } else {
                ggml_backend_sched_synchronize(ctx.sched.get());
            }
        }
        return done;
    }

    // fc(features) of n positions into `inputs`.
    int32_t encode(int32_t n, const float * features) {
        inputs.resize((size_t) n * n_embd);
        if (!compute(LLM_GRAPH_TYPE_ENCODER, n, nullptr, features, inputs.data())) {
            return specee_fail(SPECEE_FAILED, "the EAGLE-3 head could not take the model's hidden states");
        }
        return SPECEE_OK;
    }

    // n pairs (tokens, inputs) after those in the cache.
    int32_t decode(int32_t n, const llama_token * tokens) {
        const llama_pos before = length;
        has_best               = false;
        specee_scope_guard back([&] {
            if (length == before) {
                roll_back(before);
            }
        });
        float *            made = states.get() + (size_t) length * n_embd;
        if (!compute(LLM_GRAPH_TYPE_DECODER, n, tokens, inputs.data(), made)) {
            return specee_fail(SPECEE_FAILED, "the EAGLE-3 head could not compute");
        }
        length += n;
        has_best = true;
        return SPECEE_OK;
    }
};

specee_eagle_head * specee_eagle_head_init(llama_context * ctx, specee_rows * target, llama_seq_id slot) {
    return specee_guard(ctx, (specee_eagle_head *) nullptr, [&]() -> specee_eagle_head * {
        if (ctx->get_model().arch != LLM_ARCH_EAGLE3) {
            specee_fail(SPECEE_INVALID, "the file is no EAGLE-3 head");
            return nullptr;
        }
        if (target == nullptr || target->find_slot(slot) == nullptr ||
            target->kept_layers.size() * target->n_embd != ctx->get_model().hparams.n_embd_inp_enc()) {
            specee_fail(SPECEE_INVALID, "the target keeps the states of other layers than the EAGLE-3 head reads");
            return nullptr;
        }
        auto * kv = dynamic_cast<llama_kv_cache *>(ctx->get_memory());
        if (kv == nullptr || kv->get_n_stream() != 1) {
            specee_fail(SPECEE_INVALID, "an EAGLE-3 head needs a context of one sequence");
            return nullptr;
        }
        return new specee_eagle_head(*ctx, *kv, *target, slot);
    });
}

void specee_eagle_head_free(specee_eagle_head * head) {
    delete head;
}

int32_t specee_eagle_head_read(specee_eagle_head * head, int32_t n, const llama_token * tokens,
                               const float * features) {
    return specee_entry(head, [&] {
        if (n < 1 || n > (int32_t) head->ctx.n_ubatch() || tokens == nullptr) {
            return specee_fail(SPECEE_INVALID, "a batch of tokens is needed");
        }
        if (head->length + n > (llama_pos) head->ctx.n_ctx()) {
            return specee_fail(SPECEE_NO_SPACE, "the EAGLE-3 head's window is full");
        }
        if (!std::all_of(tokens, tokens + n, [&](llama_token t) { return head->is_token(t); })) {
            return specee_fail(SPECEE_INVALID, "no such token");
        }
        int32_t status = SPECEE_OK;
        if (features == nullptr) {
            head->features.resize((size_t) n * head->model.hparams.n_embd_inp_enc());
            status   = head->target.layer_states(head->slot, head->length, n, head->features.data());
            features = head->features.data();
        }
        status = status == SPECEE_OK ? head->encode(n, features) : status;
        return status == SPECEE_OK ? head->decode(n, tokens) : status;
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
        if (!head->is_token(token)) {
            return specee_fail(SPECEE_INVALID, "no such token");
        }
        const float * last = head->states.get() + (size_t) (head->length - 1) * head->n_embd;
        head->inputs.assign(last, last + head->n_embd);
        return head->decode(1, &token);
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

int32_t specee_eagle_head_best(const specee_eagle_head * head, llama_token * token, float * prob) {
    return specee_entry(head, [&] {
        if (!specee_given(token, prob)) {
            return (int32_t) SPECEE_INVALID;
        }
        if (!head->has_best) {
            return specee_fail(SPECEE_INVALID,
                               "nothing is expected after the last token: it was forgotten, or not read");
        }
        if (!(head->best_prob > 0.0f)) {
            return specee_fail(SPECEE_FAILED, "the EAGLE-3 head gives no numbers: its file is damaged");
        }
        *token = head->known.empty() ? (llama_token) head->best_at : (llama_token) head->known[head->best_at];
        *prob  = head->best_prob;
        return (int32_t) SPECEE_OK;
    });
}
