// Rows in flight of one llama_context: what rows.cpp, probe.cpp and sampling.cpp share.
#pragma once

#include "error.h"
#include "head.h"
#include "probe.h"
#include "specee.h"
#include "threads.h"

#include "llama-context.h"
#include "llama-kv-cache.h"
#include "llama-model.h"

#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

// The most recent positions of a sequence, as a ring over the position. Older ones are complete and forgotten.
struct specee_sequence {
    struct row {
        int32_t  depth      = 0;  // layers whose K/V are written
        int32_t  layer      = -1; // layer after which `hidden` was taken, -1: not kept
        int32_t  lens_layer = -1; // layer of the lens that `estimate` was seen through
        uint32_t cell       = 0;  // its place in the KV cache
        bool     probed     = false;
    };

    llama_pos length  = 0; // first position without a row
    llama_pos settled = 0; // all rows before this one are complete

    std::vector<row>   rows;      // [ring]
    std::vector<float> hidden;    // [ring][n_embd]
    std::vector<float> estimates; // [ring][n_embd], the hidden states seen through their lenses
    std::vector<float> probs;     // [ring][SPECEE_K_MAX], candidates' probabilities at the last probe of the row
};

// What a graph computes; graphs are cached by it.
struct specee_range {
    int32_t begin   = 0;
    int32_t end     = 0;
    int32_t n_rows  = 0;
    bool    logits  = false;
    bool    kv_only = false;
    bool    scores  = false; // of the shortlist, through the lens of `end`

    bool operator==(const specee_range & o) const {
        return begin == o.begin && end == o.end && n_rows == o.n_rows && logits == o.logits && kv_only == o.kv_only &&
               scores == o.scores;
    }
};

// A built graph with its own scheduler, so that it keeps its allocation between calls.
struct specee_segment {
    specee_range           range;
    ggml_backend_sched_ptr sched;
    llm_graph_result_ptr   result;
    ggml_cgraph *          scrap  = nullptr; // layers outside of the range, never computed
    ggml_tensor *          in     = nullptr; // [n_embd, n_rows] hidden states at `begin`, null for tokens
    ggml_tensor *          out    = nullptr; // [n_embd, n_rows] hidden states at `end`
    ggml_tensor *          lens   = nullptr; // [n_embd, n_rows] the same through the lens of `end`, if there is one
    ggml_tensor *          scores = nullptr; // [n_short, n_rows] logits of the shortlist
    int                    n_seen = 0;       // K/V only: nodes of the scrap graph already looked at
    bool                   built  = false;
};

struct specee_rows {
    llama_context &     ctx;
    const llama_model & model;
    llama_kv_cache *    kv; // null: this model runs whole rows only

    const int32_t n_layer;
    const int32_t n_embd;
    const int32_t n_vocab;
    const int32_t n_rows_max;
    const int32_t ring;
    const size_t  graph_cache_max;

    std::map<llama_seq_id, specee_sequence> sequences;

    std::list<specee_segment> segments; // most recently used first
    specee_segment *          building = nullptr;

    // last layer's output of the plain llama_decode graphs, by graph
    std::unordered_map<const llm_graph_result *, ggml_tensor *> tails;

    const float *      logits       = nullptr; // [n_logits][n_vocab]
    int32_t            n_logits     = 0;
    specee_segment *   logits_owner = nullptr;
    std::vector<float> logits_host;  // when the backend's memory cannot be read directly
    std::vector<float> short_logits; // [n_short] of the last row whose range had `scores`

    // reused between calls
    std::vector<llama_token>                   tokens;
    std::vector<llama_pos>                     pos;
    std::vector<int32_t>                       n_seq_id;
    std::vector<llama_seq_id *>                seq_ids;
    std::vector<llama_seq_id>                  seq_id;
    std::vector<int32_t>                       seq_idx;
    std::vector<int8_t>                        output;
    std::vector<llama_pos>                     suffix;
    std::vector<float>                         hidden_in;
    std::vector<llama_token_data>              sample_buffer;
    std::vector<std::pair<float, llama_token>> sample_heap;

    std::atomic<bool> cancelled{ false };
    specee_threads    threads;

    std::unique_ptr<specee_head>  head;
    std::unique_ptr<specee_probe> probe;

    specee_rows(llama_context & ctx, llama_kv_cache * kv, int32_t n_rows_max, int32_t graph_cache_max);
    ~specee_rows();

    specee_sequence &       sequence(llama_seq_id seq);
    const specee_sequence * find(llama_seq_id seq) const;

    specee_sequence::row & row(specee_sequence & s, llama_pos p) { return s.rows[p % ring]; }
    float * hidden(specee_sequence & s, llama_pos p) { return s.hidden.data() + (size_t) (p % ring) * n_embd; }
    float * estimate(specee_sequence & s, llama_pos p) { return s.estimates.data() + (size_t) (p % ring) * n_embd; }
    bool kept(const specee_sequence & s, llama_pos p) const { return p >= 0 && p < s.length && p >= s.length - ring; }

    // New rows through all layers by plain llama_decode; the last `n_wanted` get logits.
    int32_t whole(llama_seq_id seq, llama_pos p, int32_t n, const llama_token * toks, int32_t n_wanted);
    int32_t advance(llama_seq_id seq, int32_t n, const llama_pos * ps, const llama_token * toks, int32_t end,
                    uint32_t flags);
    // Brings the last row (a new one with `token`, unless that is -1) to depth `end`, and with it the rows that wait at
    // depths below `end`: depths never grow with the position, so they are a suffix, and rows join as depths meet.
    int32_t climb(llama_seq_id seq, llama_token token, int32_t end, bool want_scores);
    int32_t look(specee_sequence & s, llama_pos p, int32_t k, const llama_token * candidates, float * score,
                 float * features);
    // The last layer's output at a recent position, or the estimate of it after an exit; null when not known.
    const float * final_state(specee_sequence & s, llama_pos p);
    int32_t       lens_head(llama_seq_id seq, llama_pos p);
    int32_t       roll_back(llama_seq_id seq, llama_pos p);

    void drop_graphs();

  private:
    void             take_threads(int32_t n, bool may_stop); // before each computation
    specee_segment & segment(const specee_range & range);
    int32_t compute(specee_segment & seg, llama_seq_id seq, int32_t n, const llama_pos * ps, const llama_token * toks,
                    const llama_kv_cache::slot_info & slot);
    bool    build(specee_segment & seg, const llm_graph_params & params);
    void    keep_logits(specee_segment & seg);
};
