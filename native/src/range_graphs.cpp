// Graphs of ranges of layers: cut out of the model's own while llama.cpp builds it, kept, and computed.
#include "hooks.h"
#include "rows.h"

#include "llama-graph.h"
#include "llama-impl.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>

static constexpr size_t N_GROUP_NODES = 24; // of one more slot's or row's attention, in each layer

// ---- call sites inside llama.cpp -----------------------------------------------------------------------------------

void specee_graph_begin(llm_graph_context & builder) {
    specee_rows * rows = builder.cparams.specee;
    if (rows == nullptr || rows->building == nullptr) {
        return;
    }
    specee_range_graph & graph = *rows->building;
    // the result was made with room for a second graph
    graph.scrap  = ggml_new_graph_custom(builder.ctx0, graph.result->get_max_nodes() / 2, false);
    graph.in     = nullptr;
    graph.in_at  = nullptr;
    graph.out_at = nullptr;
    graph.out    = {};
    graph.lens   = {};
    graph.scores = {};
    graph.n_ends = 0;
    graph.n_seen = 0;
    graph.masks.clear();
    graph.kept.assign(rows->kept_layers.size(), {});
    if (graph.range.begin > 0) {
        builder.gf = graph.scrap;
    }
}

static ggml_tensor * new_input(const llm_graph_context & builder, const char * name, ggml_type type, int64_t n0,
                               int64_t n1) {
    ggml_tensor * in = ggml_new_tensor_2d(builder.ctx0, type, n0, n1);
    ggml_set_name(in, name);
    ggml_set_input(in);
    return in;
}

// The hidden states that a range begins with.
static ggml_tensor * first_states(const llm_graph_context & builder, specee_rows & rows, specee_range_graph & graph) {
    const specee_range & r = graph.range;
    if (r.source < 0) {
        return new_input(builder, "rows_in", GGML_TYPE_F32, builder.n_embd, r.n_rows);
    }
    const specee_device & device = rows.devices[r.source];
    graph.in_at                  = new_input(builder, "rows_at", GGML_TYPE_I32, r.n_rows, 1);
    return ggml_get_rows(builder.ctx0, (r.by_lens ? device.estimates : device.states).tensor, graph.in_at);
}

// K/V only: of a layer's nodes, only the ones that write its K and V (and what these need) become part of the graph.
static void keep_kv_writes(specee_range_graph & graph, ggml_cgraph * gf) {
    const int n_nodes = ggml_graph_n_nodes(graph.scrap);
    for (; graph.n_seen < n_nodes; ++graph.n_seen) {
        ggml_tensor * node = ggml_graph_node(graph.scrap, graph.n_seen);
        if (node->op == GGML_OP_SET_ROWS) {
            ggml_build_forward_expand(gf, node);
        }
    }
}

// The last states stay on the device, and what a lens makes of them.
static void keep_on_device(const llm_graph_context & builder, const specee_device & device,
                           specee_range_graph & graph) {
    ggml_context * ctx0 = builder.ctx0;
    graph.out_at        = new_input(builder, "rows_to", GGML_TYPE_I32, graph.range.n_rows, 1);
    const auto keep     = [&](const specee_device_tensor & in, ggml_tensor * states) {
        ggml_build_forward_expand(builder.gf, ggml_set_rows(ctx0, in.tensor, states, graph.out_at));
    };
    keep(device.states, graph.out.tensor);
    if (graph.lens.tensor != nullptr) {
        keep(device.estimates, graph.lens.tensor);
    }
}

static ggml_tensor * apply_lens(ggml_context * ctx0, const specee_lens & lens, ggml_tensor * hidden, float eps) {
    ggml_tensor * x = ggml_rms_norm(ctx0, hidden, eps);
    ggml_tensor * y = ggml_mul_mat(ctx0, lens.down, x);
    if (lens.up != nullptr) {
        y = ggml_mul_mat(ctx0, lens.up, y);
    }
    return ggml_add(ctx0, y, lens.bias);
}

// One hidden state for each row: what a range can begin with.
static bool is_state(const llm_graph_context & builder, const ggml_tensor * t) {
    return t->type == GGML_TYPE_F32 && t->ne[0] == builder.n_embd && t->ne[2] == 1 && t->ne[3] == 1 &&
           ggml_is_contiguous(t);
}

ggml_tensor * specee_layer_end(const llm_graph_context & builder, ggml_tensor * cur, int il) {
    specee_rows * rows = builder.cparams.specee;
    const int     done = il + 1;
    if (done == builder.n_layer && is_state(builder, cur)) {
        // in every graph: the memory that llama.cpp gives a plain decode is planned before we are there
        ggml_set_output(cur);
    }
    if (rows == nullptr) {
        return cur;
    }
    if (rows->building == nullptr) {
        // a plain decode: the last layer's output can be read, drafts start from it
        if (done == rows->n_layer) {
            rows->last_outputs[builder.res] = is_state(builder, cur) ? cur : nullptr;
        }
        if (!rows->kept_layers.empty()) {
            rows->mark_kept(rows->layer_outputs[builder.res], cur, done);
        }
        return cur;
    }

    if (rows->level < SPECEE_LEVEL_RANGES) {
        return cur; // whole rows
    }

    specee_range_graph & graph = *rows->building;
    const specee_range & r     = graph.range;
    ggml_cgraph *        gf    = builder.res->get_gf();
    if (il != graph.n_ends++) {
        throw std::runtime_error("its layers do not run one after the other");
    }
    if (!is_state(builder, cur) || cur->ne[1] != r.n_rows) {
        throw std::runtime_error("its layers hand on more than one hidden state");
    }
    // graphs are built by a const method of an object that is not const
    ggml_cgraph *& builder_gf = const_cast<llm_graph_context &>(builder).gf;

    if (done == r.begin) {
        graph.in     = first_states(builder, *rows, graph);
        graph.n_seen = ggml_graph_n_nodes(graph.scrap);
        builder_gf   = r.kv_only ? graph.scrap : gf;
        return graph.in;
    }
    if (r.kv_only) {
        if (done > r.begin && done <= r.end) {
            keep_kv_writes(graph, gf);
        }
        return done > r.begin ? graph.in : cur;
    }
    if (done > r.begin && done <= r.end) {
        rows->mark_kept(graph.kept, cur, done);
    }
    if (done == r.end && r.begin < r.end) {
        graph.out.tensor = cur;
        ggml_set_output(cur);
        ggml_build_forward_expand(gf, cur);
        const specee_lens * lens = rows->exit_weights == nullptr ? nullptr : &rows->exit_weights->lenses[r.end];
        if (lens != nullptr && lens->down != nullptr) {
            const float   eps  = rows->token_matrices->eps;
            ggml_tensor * seen = apply_lens(builder.ctx0, *lens, cur, eps);
            graph.lens.tensor  = seen;
            ggml_set_output(seen);
            ggml_build_forward_expand(gf, seen);
            if (r.scores) {
                ggml_tensor * normed = rows->token_matrices->centred ? ggml_norm(builder.ctx0, seen, eps)
                                                                     : ggml_rms_norm(builder.ctx0, seen, eps);
                graph.scores.tensor =
                    ggml_mul_mat(builder.ctx0, rows->exit_weights->shortlist.at(rows->device_of[il]), normed);
                ggml_set_output(graph.scores.tensor);
                ggml_build_forward_expand(gf, graph.scores.tensor);
            }
        }
        if (rows->states_at(r.end) >= 0) {
            keep_on_device(builder, rows->devices[rows->states_at(r.end)], graph);
        }
        if (!r.logits) {
            builder_gf = graph.scrap;
        }
    }
    return cur;
}

bool specee_no_deferred_layers(const specee_rows * rows, const char * caller) {
    if (rows == nullptr || rows->decoding) { // ours reads one slot only, which has none
        return true;
    }
    for (const specee_slot & s : rows->slots) {
        for (const int32_t id : s.chain) {
            const specee_row & r = *rows->find(id);
            if (r.depth > 0 && r.depth < rows->n_layer) {
                LLAMA_LOG_ERROR("%s: the row at position %d of sequence %d has deferred layers\n", caller, r.pos,
                                r.slot);
                return false;
            }
        }
    }
    return true;
}

// ---- built graphs --------------------------------------------------------------------------------------------------

void specee_rows::drop_graphs() {
    if (logits_owner != nullptr) {
        logits       = nullptr;
        logits_owner = nullptr;
        logits_groups.clear();
    }
    range_graphs.clear();
}

// A graph reads the K and V of these slots; how many of them, it is built for anew.
static bool alike(const specee_group & a, const specee_group & b) {
    return a.slot == b.slot && a.n_rows == b.n_rows;
}

std::list<specee_range_graph>::iterator specee_rows::oldest_graph() {
    const auto oldest = std::find_if(range_graphs.rbegin(), range_graphs.rend(), [&](const specee_range_graph & graph) {
        return !graph.busy && &graph != logits_owner; // whose logits may still be read
    });
    return oldest == range_graphs.rend() ? range_graphs.end() : std::prev(oldest.base());
}

specee_range_graph & specee_rows::graph_of(const specee_range & range) {
    for (auto it = range_graphs.begin(); it != range_graphs.end(); ++it) {
        if (it->range == range &&
            std::equal(it->groups.begin(), it->groups.end(), groups.begin(), groups.end(), alike)) {
            range_graphs.splice(range_graphs.begin(), range_graphs, it);
            return range_graphs.front();
        }
    }
    for (auto oldest = oldest_graph(); range_graphs.size() >= graph_cache_max && oldest != range_graphs.end();
         oldest      = oldest_graph()) {
        range_graphs.erase(oldest);
    }
    need_memory(range.n_rows, true);
    // where layers are on a GPU, attention may run row by row
    const size_t       n_parts   = model.n_gpu_layers() > 0 ? range.n_rows : groups.size();
    const size_t       max_nodes = ctx.graph_max_nodes(range.n_rows) + (n_parts - 1) * n_layer * N_GROUP_NODES;
    specee_range_graph graph;
    graph.range  = range;
    graph.groups = groups;
    graph.result.reset(new llm_graph_result(2 * max_nodes));
    graph.sched.reset(ggml_backend_sched_new(ctx.backend_ptrs.data(), ctx.backend_buft.data(), ctx.backend_ptrs.size(),
                                             max_nodes, false, ctx.cparams.op_offload));
    range_graphs.push_front(std::move(graph));
    return range_graphs.front();
}

// Whether a graph computes with the weights of a layer before `begin`.
static bool uses_layers_before(ggml_cgraph * gf, int32_t begin) {
    for (int i = 0; i < ggml_graph_n_nodes(gf); ++i) {
        for (const ggml_tensor * t : ggml_graph_node(gf, i)->src) {
            int layer = 0;
            if (t != nullptr && std::sscanf(ggml_get_name(t), "blk.%d.", &layer) == 1 && layer < begin) {
                return true;
            }
        }
    }
    return false;
}

bool specee_rows::build(specee_range_graph & graph, const llm_graph_params & params) {
    graph.built = false;
    specee_need_memory(0);
    graph.result->reset();
    ggml_backend_sched_reset(ctx.sched.get());
    ggml_backend_sched_set_eval_callback(ctx.sched.get(), ctx.cparams.cb_eval, ctx.cparams.cb_eval_user_data);

    ggml_cgraph * gf = nullptr;
    {
        specee_scope_guard built([&] { building = nullptr; });
        building = &graph;
        gf       = model.build_graph(params);
    }
    if (gf == nullptr) {
        return false;
    }
    if (level >= SPECEE_LEVEL_RANGES && graph.n_ends != n_layer) {
        throw std::runtime_error("it does not say where its layers end");
    }
    if (is_proving && uses_layers_before(gf, graph.range.begin)) {
        throw std::runtime_error("its later layers need what the earlier ones computed");
    }
    find_inputs(graph);
    add_selection(graph, gf);
    // inputs that this range does not use must be allocated all the same: they will be set
    ggml_context * ctx0 = graph.result->get_ctx();
    for (ggml_tensor * t = ggml_get_first_tensor(ctx0); t != nullptr; t = ggml_get_next_tensor(ctx0, t)) {
        if ((t->flags & GGML_TENSOR_FLAG_INPUT) != 0 && t->op == GGML_OP_NONE) {
            ggml_build_forward_expand(gf, t);
        }
    }
    if (graph.in_at != nullptr) { // else it would follow the layers, and all states with it
        ggml_backend_sched_set_tensor_backend(ctx.sched.get(), graph.in, devices[graph.range.source].backend);
    }
    specee_sources_of sources;
    if (has_devices) {
        sources = specee_sources(gf);
    }
    graph.built = ggml_backend_sched_alloc_graph(ctx.sched.get(), gf);
    if (graph.built && has_devices) {
        graph.transfers = specee_count_copies(gf, sources);
    }
    return graph.built;
}

static int32_t status_of(ggml_status status) {
    switch (status) {
        case GGML_STATUS_SUCCESS: return SPECEE_OK;
        case GGML_STATUS_ABORTED: return specee_fail(SPECEE_CANCELLED, "cancelled");
        case GGML_STATUS_ALLOC_FAILED: return specee_fail(SPECEE_FAILED, "no memory for the compute graph");
        default: return specee_fail(SPECEE_FAILED, "the backend could not compute the graph");
    }
}

int32_t specee_rows::launch(specee_range_graph & graph) {
    const auto n = (int32_t) batch.size();
    for (int32_t i = 0; i < n; ++i) {
        pos[i]    = batch[i]->pos;
        tokens[i] = batch[i]->token;
    }
    llama_ubatch ubatch = {};
    ubatch.n_tokens     = n;
    ubatch.n_seq_tokens = 1;
    ubatch.n_seqs       = n;
    ubatch.n_seqs_unq   = 1; // one mask for all, see attention.cpp
    ubatch.n_pos        = 1;
    ubatch.token        = tokens.data(); // later ranges too: some layers look them up
    ubatch.pos          = pos.data();
    ubatch.n_seq_id     = n_seq_id.data();
    ubatch.seq_id       = seq_ids.data();
    ubatch.seq_id_unq   = &seq_id;
    ubatch.seq_idx      = seq_idx.data();
    ubatch.output       = output.data();

    set_extents();
    const bool same_extents =
        std::equal(groups.begin(), groups.end(), graph.groups.begin(),
                   [](const auto & a, const auto & b) { return a.n_kv == b.n_kv && a.window == b.window; });
    graph.groups = groups;
    graph.busy   = false;
    if (logits_owner == &graph || graph.range.logits) {
        logits_groups.clear(); // they are written anew
    }
    ctx.n_outputs = n;
    specee_scope_guard swap_back([&] {
        std::swap(ctx.sched, graph.sched);
        if (!graph.built) { // its scheduler may have got no memory in the middle: never used again
            logits_owner = logits_owner == &graph ? nullptr : logits_owner;
            range_graphs.pop_front();
        }
    });
    std::swap(ctx.sched, graph.sched);
    const llm_graph_params params = ctx.graph_params(graph.result.get(), ubatch, memory.get(), LLM_GRAPH_TYPE_DEFAULT);

    ggml_status status = GGML_STATUS_ALLOC_FAILED;
    if ((graph.built && same_extents && graph.result->can_reuse(params)) || build(graph, params)) {
        bool again = false;
        do {
            for (const specee_attention_input & input : graph.attention) { // each time: their memory is used again
                set_inputs(input);
            }
            for (llm_graph_input_i * input : graph.inputs) {
                input->set_input(&ubatch);
            }
            if (graph.in != nullptr && graph.in_at == nullptr) {
                ggml_backend_tensor_set(graph.in, hidden_in.data(), 0, ggml_nbytes(graph.in));
            }
            set_places(graph);
            make_room(graph);
            take_threads(n, !again);
            status = ctx.graph_compute(graph.result->get_gf(), n > 1);
            again  = status == GGML_STATUS_ABORTED && threads.has_stopped();
            if (status != GGML_STATUS_SUCCESS) { // what runs of it uses the same memory
                ggml_backend_sched_synchronize(ctx.sched.get());
            }
        } while (again);
    }
    graph.busy = status == GGML_STATUS_SUCCESS;
    return status_of(status);
}

int32_t specee_rows::wait_for(specee_range_graph & graph) {
    if (has_devices) {
        read_results(graph);
    }
    ggml_backend_sched_synchronize(graph.sched.get());
    graph.busy = false;
    // a GPU does not ask meanwhile
    return status_of(cancelled.load(std::memory_order_relaxed) ? GGML_STATUS_ABORTED : GGML_STATUS_SUCCESS);
}

void specee_rows::keep_logits(specee_range_graph & graph) {
    ggml_tensor * t = graph.result->get_logits();
    logits_groups   = groups;
    logits_owner    = &graph;
    logits          = ggml_backend_buffer_is_host(t->buffer) ? static_cast<const float *>(t->data)
                      : logits_host.empty()                  ? nullptr
                                                             : logits_host.data();
}
