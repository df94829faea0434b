// Slots and rows in flight of one llama_context: what the sources of the C ABI share.
#pragma once

#include "device_states.h"
#include "draft_head.h"
#include "error.h"
#include "exit_weights.h"
#include "hooks.h"
#include "specee.h"
#include "threads.h"
#include "token_matrices.h"
#include "transfers.h"

#include "llama-context.h"
#include "llama-kv-cache.h"
#include "llama-model.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

// A token at a position of a slot: in flight, or committed not long ago.
struct specee_row {
    int32_t      id         = -1; // -1: free
    int32_t      parent     = -1; // of a prefilled row: the last committed one before it that was kept
    llama_seq_id slot       = 0;
    llama_pos    pos        = 0;
    llama_token  token      = 0;
    int32_t      depth      = 0;  // layers done: their K/V are written
    int32_t      layer      = -1; // layer after which its hidden state was taken, -1: not kept
    int32_t      lens_layer = -1; // layer of the lens that its estimate was seen through
    int32_t      cell       = 0;  // its place in the KV cache: its position, but for side rows
    int64_t      batch      = 0;  // the last batch that it was in
    bool         in_flight  = false;
    bool         is_side    = false; // in flight beside the principal chain
    bool         no_states  = false; // it passed kept layers unseen
    int32_t      n_probed   = 0;     // candidates of its last probe, 0: none yet

    // Its hidden state, and the estimate if there is one, are in the memory of the device of its layer; the host may
    // have read them.
    bool    on_device    = false;
    bool    has_state    = false;
    bool    has_estimate = false;
    int32_t turn         = 0; // which of its two places there
};

// Of two logits: the greater one, of equal ones the token that comes first.
inline bool specee_is_greater(const llama_token_data & a, const llama_token_data & b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

inline constexpr char SPECEE_NO_NUMBERS[] = "the model gives no numbers: its file is damaged";

struct specee_free {
    void operator()(void * memory) const { std::free(memory); }
};

// One conversation. Its rows in flight are a tree, in which the first child of each row continues the principal chain.
// The K/V of side rows are in the cells after that chain; llama.cpp's own list of cells does not know them.
struct specee_slot {
    llama_pos            length = 0;  // committed positions
    int32_t              last   = -1; // the last committed row that was kept
    std::vector<int32_t> chain;       // the principal chain: positions from `length` on, each row the next one's parent
    std::vector<int32_t> side;        // side rows, in the order in which they were appended
    bool                 side_done = false; // side rows have K/V: the chain must not grow into their cells
    bool                 torn      = false; // an exception may have left llama.cpp's list of its cells undone
    // [n_ctx_seq][kept layers][n_embd] what the kept layers made of each position; rows of the chain write it too
    std::unique_ptr<ggml_fp16_t[], specee_free> states;
    llama_pos                                   n_states = 0; // so many of the first positions have it

    int32_t n_in_flight() const { return (int32_t) (chain.size() + side.size()); }
};

// The rows of one slot in a batch. They attend to the first n_kv cells of that slot, through a sliding window to those
// of them from `window` on.
struct specee_group {
    llama_seq_id slot   = 0;
    int32_t      first  = 0; // in the batch
    int32_t      n_rows = 0;
    int32_t      n_kv   = 0;
    int32_t      window = 0;
};

// What the host needs at once of what a lens makes of the last row: the shortlist's logits, or the estimate for a
// probe.
enum class specee_read_last { nothing, scores, estimate };

// What a graph computes; graphs are cached by it.
struct specee_range {
    int32_t begin   = 0;
    int32_t end     = 0;
    int32_t n_rows  = 0;
    bool    logits  = false;
    bool    kv_only = false;
    bool    scores  = false; // of the shortlist, through the lens of `end`
    int32_t source  = -1;    // the device in whose memory it finds the rows' states, -1: the host gives them
    bool    by_lens = false; // it finds the estimates of them
    bool    selects = false; // the greatest logits, where the device has them

    bool operator==(const specee_range & o) const {
        return begin == o.begin && end == o.end && n_rows == o.n_rows && logits == o.logits && kv_only == o.kv_only &&
               scores == o.scores && source == o.source && by_lens == o.by_lens && selects == o.selects;
    }
};

// Where the attention of one cache finds what each computation gives it.
struct specee_attention_input {
    const llama_kv_cache * cache;
    ggml_tensor *          k_at; // the places of K and V
    ggml_tensor *          v_at; // null where V is part of K
    ggml_tensor *          mask;
    ggml_tensor *          k_rot;
    ggml_tensor *          v_rot;
};

// What the host reads of a graph: where it is, or a copy that comes with the end of the computation.
struct specee_result {
    ggml_tensor *      tensor = nullptr; // [n, n_rows]
    int32_t            first  = 0;       // the first row that is wanted this time; the last ones are
    std::vector<float> copy;

    bool          is_here() const { return ggml_backend_buffer_is_host(tensor->buffer); }
    void          make_room() { copy.resize(is_here() ? 0 : (tensor->ne[1] - first) * tensor->ne[0]); }
    const float * row(int32_t i) const {
        return is_here() ? (const float *) ((const char *) tensor->data + i * tensor->nb[1])
                         : copy.data() + (i - first) * tensor->ne[0];
    }
};

// A built graph with its own scheduler, so that it keeps its allocation between calls.
struct specee_range_graph {
    specee_range               range;
    std::vector<specee_group>  groups;
    ggml_backend_sched_ptr     sched;
    llm_graph_result_ptr       result;
    ggml_cgraph *              scrap = nullptr; // layers outside of the range, never computed
    ggml_tensor *              in    = nullptr; // [n_embd, n_rows] hidden states at `begin`, null for tokens
    specee_result              out;             // [n_embd, n_rows] hidden states at `end`
    specee_result              lens;            // [n_embd, n_rows] the same through the lens of `end`, if there is one
    specee_result              scores;          // [n_short, n_rows] logits of the shortlist
    specee_result              selected;        // [.., n_rows] the greatest logits, see selected_logits.cpp
    std::vector<specee_result> kept; // [kept layers] of [n_embd, n_rows]: null for those outside of the range
    ggml_tensor *              in_at     = nullptr; // [n_rows] places of the states on a device, null: not there
    ggml_tensor *              out_at    = nullptr;
    int                        n_ends    = 0; // ends of layers that were seen
    int                        n_seen    = 0; // K/V only: nodes of the scrap graph that were searched for K/V writes
    bool                       built     = false;
    bool                       busy      = false; // launched, not read yet: it must stay
    specee_transfers           transfers = {};    // of one computation

    std::vector<specee_attention_input> attention;
    std::vector<llm_graph_input_i *>    inputs; // the others
    std::vector<ggml_tensor *>          masks;  // parts of attention's masks: the same ones in all layers
};

// Rows on their way through a range of layers: begun, and not finished yet. Several may be under way at once.
struct specee_pass {
    std::vector<specee_row *> batch;
    std::vector<specee_group> groups; // the same, by slot
    specee_range              range;
    bool                      wants_estimate = false;   // of the last row, for a probe
    specee_range_graph *      graph          = nullptr; // null: not launched
    bool                      has_begun      = false;
    bool                      is_torn        = false; // an exception left it in the middle
    bool                      done           = false;

    bool is_new() const { return range.begin == 0; }
};

// The KV caches of a context, where each token has a cell; none where its memory is another one.
std::vector<llama_kv_cache *> specee_caches(const llama_context & ctx);

struct specee_rows {
    llama_context &     ctx;
    const llama_model & model;

    // What this model and this context can do: see specee_level and proof.cpp.
    int32_t     level = SPECEE_LEVEL_DENSE;
    std::string limit;                             // why not more
    int32_t     n_equal = specee_max_equal_rows(); // so many rows in one batch get the bits that each has alone

    // One, or one for the layers with a sliding window and one for the others: alike in their streams and cells. None:
    // rows go through llama_decode.
    std::vector<llama_kv_cache *> caches;
    llama_kv_cache *              kv = nullptr; // the first one

    const int32_t n_layer;
    const int32_t n_embd;
    const int32_t n_vocab;
    const int32_t n_rows_max;
    const int32_t n_kept;              // rows that are kept: the place of a row is its id modulo this
    bool          has_devices = false; // not CPUs alone
    size_t        graph_cache_max;

    std::vector<specee_slot> slots;
    std::vector<specee_row>  places;    // [n_kept]
    std::vector<float>       states;    // [n_kept][n_embd] hidden states, if they are not on a device
    std::vector<float>       estimates; // [n_kept][n_embd] the hidden states seen through their lenses
    std::vector<float>       probs;     // [n_kept][SPECEE_K_MAX] candidates' probabilities at the last probe of the row
    int64_t                  next_id = 0;

    std::vector<specee_device> devices;   // that compute layers
    std::vector<int32_t>       device_of; // [n_layer + 1] which of them each layer and the LM head have, -1: a CPU
    specee_transfers           transfers = {};

    std::list<specee_range_graph> range_graphs; // most recently used first
    specee_range_graph *          building     = nullptr;
    bool                          is_attending = false; // attention is being built by us

    // last layer's output of the plain llama_decode graphs, by graph
    std::unordered_map<const llm_graph_result *, ggml_tensor *> last_outputs;
    bool                                                        decoding = false; // a llama_decode of ours is under way
    // the same of some more layers, in the order of kept_layers
    std::vector<int32_t>                                                     kept_layers;
    std::unordered_map<const llm_graph_result *, std::vector<specee_result>> layer_outputs;

    const float *             logits = nullptr; // [n][n_vocab], null: on the device that computed them
    std::vector<specee_group> logits_groups;    // whose they are; empty: there are none
    specee_range_graph *      logits_owner = nullptr;
    std::vector<float>        logits_host;              // when the backend's memory cannot be read directly
    bool                      selects          = false; // a device selects the greatest ones
    bool                      wants_whole_rows = false; // they were asked for since the last computation
    std::vector<float>        shortlist_logits;         // [n_short] of the last row whose range had `scores`

    // reused between calls
    std::vector<specee_row *>                  batch;  // the rows of the present computation
    std::vector<specee_group>                  groups; // the same, by slot
    std::vector<specee_pass>                   passes; // that run at the same time
    int64_t                                    n_batches = 0;
    std::unique_ptr<llama_memory_context_i>    memory; // the cells that llama.cpp builds a graph for
    std::vector<llama_kv_cache_context *>      views;  // the same, by cache
    llama_kv_cache::slot_info                  cells;  // of new rows
    std::vector<int32_t>                       batch_ids;
    std::vector<llama_token>                   tokens;
    std::vector<llama_pos>                     pos;
    std::vector<int32_t>                       n_seq_id;
    std::vector<llama_seq_id *>                seq_ids;
    llama_seq_id                               seq_id = 0;
    std::vector<int32_t>                       seq_idx;
    std::vector<int8_t>                        output;
    std::vector<float>                         hidden_in;
    std::vector<float>                         layer_out; // [n][n_embd] of one kept layer
    std::vector<llama_token_data>              sample_buffer;
    std::vector<std::pair<float, llama_token>> sample_heap;
    std::vector<float>                         proof_logits; // [n][n_vocab] of the proof's tokens
    bool                                       is_proving     = false;
    bool                                       wants_estimate = false; // of the last row, of the present computation

    std::atomic<bool> cancelled{ false };
    specee_threads    threads;

    // null where there are no exits
    std::unique_ptr<specee_token_matrices> token_matrices;
    std::unique_ptr<specee_exit_weights>   exit_weights;
    specee_draft_head                      draft_head;

    specee_rows(llama_context & ctx, int32_t n_rows_max, int32_t graph_cache_max);
    ~specee_rows();

    // ---- bookkeeping: rows.cpp

    specee_slot *       find_slot(llama_seq_id slot); // null, with an error, when there is none
    const specee_slot * find_slot(llama_seq_id slot) const;
    specee_row *        find(int32_t id) { return const_cast<specee_row *>(std::as_const(*this).find(id)); }
    const specee_row *  find(int32_t id) const {
        const specee_row * r = id < 0 ? nullptr : &places[id % n_kept];
        return r != nullptr && r->id == id ? r : nullptr;
    }

    size_t  place(const specee_row & r) const { return &r - places.data(); }
    float * host_state(const specee_row & r) { return states.data() + place(r) * n_embd; }
    float * host_estimate(const specee_row & r) { return estimates.data() + place(r) * n_embd; }
    // The last layer's output, or the estimate of it after an exit; null when not known.
    const float * final_state(specee_row & r);
    bool          has_final_state(const specee_row & r) const;
    // The parent of a row in flight, if it is in flight too.
    const specee_row * parent_in_flight(const specee_row & r) const {
        const specee_row * parent = find(r.parent);
        return parent != nullptr && parent->in_flight ? parent : nullptr;
    }

    bool are_tokens(int32_t n, const llama_token * toks) const; // of this vocabulary

    // What a call returns that needs a higher level.
    int32_t fail_level() const;

    int32_t append(llama_seq_id slot, int32_t parent, llama_token token);
    int32_t commit(int32_t id, bool keep_rest);
    int32_t roll_back(llama_seq_id slot, llama_pos length);

    // ---- what can be done with this model: proof.cpp

    // Tries it, on an empty slot 0 (and 1), or with a level takes that for proven. `path`: of the model's file.
    void prove(const std::string & path, int32_t proven, int32_t proven_rows, const std::string & proven_limit);

    // ---- whole rows: whole_rows.cpp

    int32_t prefill(llama_seq_id slot, int32_t n, const llama_token * toks, bool want_logits);

    // ---- what some layers make of each token: layer_states.cpp

    int32_t keep_layers(int32_t n, const int32_t * layers);
    int32_t layer_states(llama_seq_id slot, llama_pos begin, int32_t n, float * out) const;
    // `done` layers end here in a graph that is being built.
    void mark_kept(std::vector<specee_result> & kept, ggml_tensor * cur, int32_t done) const;

    // ---- hidden states on devices: device_states.cpp

    const float * hidden(specee_row & r); // reads it, if need be
    const float * estimate(specee_row & r);
    // The device in whose memory the states after so many layers are; -1: the host's. Takes the memory.
    int32_t states_at(int32_t depth);
    bool    need_estimates(int32_t device); // false: there is no memory for them
    // By the device that has the row's final state; false: none does, or it cannot.
    bool draft_on_device(const specee_row & r, llama_token token, int32_t k, llama_token * out);

    // ---- ranges of layers: advance.cpp

    int32_t advance(int32_t n, const int32_t * ids, int32_t end, uint32_t flags,
                    specee_read_last last = specee_read_last::nothing);
    // Takes the last row of a principal chain that is not complete to depth `end`, and with it the rows that are less
    // deep: among rows that are not complete depths never grow with the position, so these are a suffix, and join as
    // depths meet.
    int32_t advance_deferred(const specee_slot & s, int32_t end, bool want_logits,
                             specee_read_last last = specee_read_last::nothing);
    int32_t lens_head(specee_row & r);

    // ---- several ranges at once: stages.cpp

    // n batches at once, in ranges of layers that have none in common.
    int32_t advance_stages(int32_t n, const int32_t * counts, const int32_t * ids, const int32_t * ends,
                           uint32_t flags);

    // ---- what the host gets of logits: selected_logits.cpp

    // Logits row i of a slot; null, with an error, when there is none.
    const float * logits_of(llama_seq_id slot, int32_t i);
    // The n greatest ones into `sample_buffer`, those of equal logits by their ids. False: all of them must be looked
    // at, or there is no such row.
    bool greatest_logits(llama_seq_id slot, int32_t i, int32_t n);
    // Whether devices select them: 0 where that is faster, > 0 all devices, < 0 none.
    void select_on_devices(int32_t which);

    // ---- probes: probe.cpp

    bool can_probe(const specee_row & r, int32_t k) const; // lens and predictor are set at its layer
    void probe_row(specee_row & r, const llama_token * candidates, float * score, float * features);

    // ---- built graphs: range_graphs.cpp

    void drop_graphs();

    // ---- attention of a batch: attention.cpp

    void set_caches(const std::vector<llama_kv_cache *> & found);
    // Whether a layer has cells that are left out, because no row sees them through its window.
    bool has_window(const llm_graph_context & builder, int il) const;
    // Each slot's rows attend to its own K and V, as if they were alone.
    ggml_tensor * attend(const llm_graph_context & builder, const specee_attention_of & attention);
    // The same by flash attention, of one slot too: each row is computed as one alone is.
    ggml_tensor * attend_flash(const llm_graph_context & builder, const specee_attention_of & attention);

  private:
    // rows.cpp
    int32_t      fail_window_full() const;
    specee_row * new_row(llama_seq_id slot, int32_t parent, llama_pos p, llama_token token); // null: all are in flight
    bool         free_from(const specee_slot & s, llama_pos p); // K/V from p on; false: the memory cannot
    void         drop_from(specee_slot & s, size_t n);          // rows in flight but the chain's first n

    // whole_rows.cpp
    int32_t advance_whole(bool want_logits); // the batch
    // Of the tokens of `groups`, which begin at these positions; with the logits of the last n_wanted.
    int32_t decode(const llama_pos * begins, const llama_token * toks, int32_t n_wanted);
    // Throws std::bad_alloc unless there is memory for a graph of n rows, and for a scheduler.
    void need_memory(int32_t n, bool new_scheduler);

    // device_states.cpp
    void   find_devices();
    size_t place_on_device(const specee_row & r) const { return place(r) + r.turn * n_kept; }
    void   fetch(const specee_device_tensor & from, const specee_row & r, float * to);

    // layer_states.cpp
    void keep_states(const specee_range_graph & graph, bool kv_only); // of the batch
    void keep_prompt_states(specee_slot & s, int32_t n);              // of n tokens that were decoded after s.length
    void keep_state(specee_slot & s, llama_pos p, size_t i, const float * state);

    // advance.cpp
    // Of `hidden_in`, or of the estimate or state that the row has on a device. The graph is the first one.
    int32_t compute_head(specee_row & r, int32_t source, bool by_lens);
    // Whether these rows can go there, which sets `batch`, `groups` and the pass's range.
    int32_t check_pass(specee_pass & pass, int32_t n, const int32_t * ids, int32_t end, uint32_t flags);
    void    reserve_again(int32_t n);                    // what llama.cpp has put off until the next computation
    int32_t begin_pass(specee_pass & pass);              // cells, inputs, launch: `batch` and `groups` are its own
    void    read_pass(specee_pass & pass);               // what was computed: now it is done
    void    leave_pass(const specee_pass & pass);        // as if it had not begun, where it is not done
    int32_t check_batch(int32_t n, const int32_t * ids); // sets `batch` and `groups`
    bool    ancestors_reach(int32_t end) const;          // of the batch
    void    take_cells();                                // for the new rows of the batch
    void    leave_cells();
    void    mend_cells(); // of torn slots in `groups`: each row's cell is its position, and no other is in use
    void    tear_cells();

    // stages.cpp
    int32_t check_stages(int32_t n, const int32_t * counts, const int32_t * ids, const int32_t * ends,
                         uint32_t flags); // sets `passes`

    // range_graphs.cpp
    specee_range_graph & graph_of(const specee_range & range);
    // The one that was used longest ago, and is not needed now; the end of the list where there is none.
    std::list<specee_range_graph>::iterator oldest_graph();
    int32_t launch(specee_range_graph & graph); // of `batch`: starts it, inputs may be changed after that
    int32_t wait_for(specee_range_graph & graph);
    bool    build(specee_range_graph & graph, const llm_graph_params & params);
    void    set_places(const specee_range_graph & graph); // on devices, of the batch's states
    void    make_room(specee_range_graph & graph);        // for what the host reads of it
    void    read_results(specee_range_graph & graph);     // queued: they are there when it is done
    void    keep_logits(specee_range_graph & graph);

    // selected_logits.cpp
    void    add_selection(specee_range_graph & graph, ggml_cgraph * gf) const;
    int32_t logits_row(llama_seq_id slot, int32_t i) const; // of the last computation; -1, with an error: none

    // attention.cpp
    void set_extents(); // n_kv and windows of the groups
    // The first position before `end` that a token at p1 sees through the window of a cache, or `end`.
    static llama_pos first_seen(const llama_kv_cache & cache, llama_pos p1, llama_pos end);
    void             find_inputs(specee_range_graph & graph) const;
    void             set_inputs(const specee_attention_input & input); // where K and V go, and what each row sees
    template <typename T> void set_mask(const llama_kv_cache & cache, T * mask) const;

    // proof.cpp
    // each returns why not, or nothing
    std::string          prove_whole_rows();
    std::string          prove_slots();
    std::string          prove_ranges();
    std::string          prove_head(const std::string & path);
    int32_t              n_tried() const; // rows at once
    bool                 has_bits_at_once(int32_t first, int32_t n);
    bool                 has_bits_in_ranges(int32_t n);
    std::vector<int32_t> append_proof(llama_seq_id slot, int32_t first, int32_t n);
    bool                 has_logits(llama_seq_id slot, int32_t i, int32_t token); // of the proof's token
    void                 read_head(const std::string & path, const specee_range_graph & graph);

    // threads.cpp
    void take_threads(int32_t n, bool may_stop); // for the computation of n rows that begins now
};
