// The C ABI of specee-chat: rows in flight over the layers of a llama.cpp model.
//
// A row is a token at a position of a sequence; its depth is the number of layers done. Rows advance in batches from
// one layer to another, stop anywhere, and go on later; their hidden states stay in here, keyed by position.
// Status codes: 0 is success, a negative value is an error, and specee_last_error() says what happened (per thread).
#pragma once

#include "llama.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPECEE_ABI_VERSION 1

enum specee_status {
    SPECEE_OK          = 0,
    SPECEE_INVALID     = -1, // the arguments contradict the state: nothing was changed
    SPECEE_UNSUPPORTED = -2, // this model cannot run in layer ranges
    SPECEE_NO_SPACE    = -3, // the KV cache is full
    SPECEE_FAILED      = -4, // the backend could not compute
    SPECEE_CANCELLED   = -5, // specee_rows_cancel() was called during the computation
};

enum specee_advance_flags {
    SPECEE_LOGITS  = 1, // only with end = n_layer: also norm and LM head, one row of logits for each row
    SPECEE_KV_ONLY = 2, // propagate: only norm, K and V of each layer, all from the row's present hidden state
    SPECEE_SCORES  = 4, // also the shortlist's logits through the lens of `end` (used by rise)
};

typedef struct specee_rows specee_rows; // the rows in flight of one llama_context

LLAMA_API int32_t      specee_abi_version(void);
LLAMA_API const char * specee_build_info(void); // "key=value" pairs separated by ';'
LLAMA_API const char * specee_last_error(void);

// SPECEE_OK when the model runs in layer ranges, else SPECEE_UNSUPPORTED with the reason as last error.
LLAMA_API int32_t specee_model_supported(const struct llama_model * model);

// model_path: the GGUF file of the context's model; rows of its LM head and embeddings are read from there. n_rows_max:
// the largest batch of rows; graph_cache_max: how many built graphs are kept (least recently used go first).
// The handle must be freed before its context. NULL on failure.
LLAMA_API specee_rows * specee_rows_init(struct llama_context * ctx, const char * model_path, int32_t n_rows_max,
                                         int32_t graph_cache_max);
LLAMA_API void          specee_rows_free(specee_rows * rows);

// Computes `tokens` at positions pos .. pos+n-1 at full depth, in one batch; logits of the last row if wanted.
LLAMA_API int32_t specee_rows_prefill(specee_rows * rows, llama_seq_id seq, llama_pos pos, int32_t n,
                                      const llama_token * tokens, int32_t want_logits);

// Advances n rows of equal depth (positions in `pos`) to depth `end`. `tokens` starts new rows at depth 0; NULL takes
// existing rows. Every earlier row of the sequence must be at least `end` deep.
LLAMA_API int32_t specee_rows_advance(specee_rows * rows, llama_seq_id seq, int32_t n, const llama_pos * pos,
                                      const llama_token * tokens, int32_t end, uint32_t flags);

// Final norm and LM head of one row's hidden state seen through the lens of its depth (the state itself at n_layer).
LLAMA_API int32_t specee_rows_lens_head(specee_rows * rows, llama_seq_id seq, llama_pos pos);

// Logits of row i of the last call that made logits: [n_vocab], valid until the next one.
LLAMA_API const float * specee_rows_logits(specee_rows * rows, int32_t i);

// Depth of a row that is in flight or was the last to finish; n_layer for other positions of the cache, -1 beyond.
LLAMA_API int32_t specee_rows_depth(const specee_rows * rows, llama_seq_id seq, llama_pos pos);
// Hidden state of a recent row at its depth: [n_embd], NULL when it is no longer kept. Valid until the next advance.
LLAMA_API const float * specee_rows_hidden(const specee_rows * rows, llama_seq_id seq, llama_pos pos);
// Forgets the rows and the K/V from position pos on.
LLAMA_API int32_t specee_rows_roll_back(specee_rows * rows, llama_seq_id seq, llama_pos pos);
// First position that has no row.
LLAMA_API llama_pos specee_rows_length(const specee_rows * rows, llama_seq_id seq);

// Makes a computation under way in another thread stop soon; cleared by the next call of specee_rows_resume.
LLAMA_API void specee_rows_cancel(specee_rows * rows);
LLAMA_API void specee_rows_resume(specee_rows * rows);

// Threads that the next computation takes: those of the context, fewer while other processes keep their cores busy.
LLAMA_API int32_t specee_rows_threads(specee_rows * rows);
// From now on exactly n threads, whatever other processes do; 0: as before.
LLAMA_API void specee_rows_fix_threads(specee_rows * rows, int32_t n);
// At most n threads for one row, which waits for memory (see saturation.py).
LLAMA_API void specee_rows_limit_single(specee_rows * rows, int32_t n);

// The next computation stops in its middle and begins again, as when a neighbour came meanwhile (tests).
// Returns how many have done so before.
LLAMA_API int32_t specee_rows_stop_next(specee_rows * rows);

// ---- probe: lens, sliced head, features, predictor -----------------------------------------------------------------
//
// Lens of a boundary: x = h / rms(h); h' = up (down x) + bias, an estimate of the last layer's output divided by its
// rms. `down` [rank][n_embd] and `up` [n_embd][rank] are Q8_0 blocks, bias [n_embd] is F32; rank and n_embd are
// multiples of 32. Without `up` (NULL) the rank is n_embd and h' = down x + bias. The data is copied; the lens becomes
// part of the graphs that end at its layer.
LLAMA_API int32_t specee_lens_set(specee_rows * rows, int32_t layer, int32_t rank, const void * down, const void * up,
                                  const float * bias);

// Predictor of a boundary: features [3k] -> ReLU(w1 f + b1) [n_hidden] -> sigmoid(w2 . + b2). w1 is [n_hidden][3k].
LLAMA_API int32_t specee_predictor_set(specee_rows * rows, int32_t layer, int32_t k, int32_t n_hidden, const float * w1,
                                       const float * b1, const float * w2, float b2);

// Score in [0,1] of the row at its present depth, whose lens and predictor are set. `features` may be NULL, else it
// gets the 3k inputs: k logits, k probabilities (softmax over the candidates), k changes of these probabilities since
// the previous probe of this row (the first one: since the uniform 1/k).
LLAMA_API int32_t specee_rows_probe(specee_rows * rows, llama_seq_id seq, llama_pos pos, int32_t k,
                                    const llama_token * candidates, float * score, float * features);

// Shortlist: up [n_short][n_embd] (head rows times the final norm's weight, as Q8_0) times h' / rms(h') are the logits
// of these tokens at any layer with a lens. The margin rule exits on the lead, the difference of the two greatest
// probabilities.
LLAMA_API int32_t specee_shortlist_set(specee_rows * rows, int32_t n_short, const llama_token * tokens,
                                       const void * up);

// Raises the last row of a sequence from layer to layer (ascending) and looks at it at each, until its score is above
// the threshold. `token` starts that row, -1 goes on with it; stopped rows before it come along where it passes them.
// k > 0: the score is the predictor's for `candidates` [k]; k = 0: it is the margin rule's lead, and `best` its token.
// Returns the index of the layer where it stopped, or n_layers (the row is then at the last of them), or a negative
// status; `scores` gets one value for each look.
LLAMA_API int32_t specee_rows_rise(specee_rows * rows, llama_seq_id seq, llama_token token, int32_t n_layers,
                                   const int32_t * layers, int32_t k, const llama_token * candidates, float threshold,
                                   float * scores, llama_token * best);

// Linear draft head: z = down [x ; e], where x is the final state (or its lens estimate) of position pos-1 divided by
// its rms, and e the embedding of `token` divided by its rms; down is [rank][2 n_embd]; scores of a shortlist of
// n_short tokens: up z + bias, with up [n_short][rank] as Q8_0.
LLAMA_API int32_t specee_draft_set(specee_rows * rows, int32_t rank, const void * down, int32_t n_short,
                                   const llama_token * tokens, const void * up, const float * bias);
// The k best tokens for the position after `pos`, where `token` stands at `pos`, best first.
LLAMA_API int32_t specee_rows_draft(specee_rows * rows, llama_seq_id seq, llama_pos pos, llama_token token, int32_t k,
                                    llama_token * out);

// Embedding rows of n tokens: out [n][n_embd] (calibration).
LLAMA_API int32_t specee_embedding_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out);
// Rows of the LM head times the final norm's weight: out [n][n_embd] (calibration).
LLAMA_API int32_t specee_head_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out);

// ---- sampling: llama.cpp's samplers over one row of logits ---------------------------------------------------------

// `chain` shapes the logits, it must not pick a token itself. `preselect` > 0 shows it only that many of the greatest
// logits: exact when nothing in the chain raises a logit and it needs no more of them (top-k plus the penalised ones).

// The token with the greatest logit after `chain` (may be NULL) shaped row i.
LLAMA_API int32_t specee_rows_greedy(specee_rows * rows, int32_t i, struct llama_sampler * chain, int32_t preselect,
                                     llama_token * out);
// The distribution of row i after `chain`: at most `capacity` tokens, most probable first, with probabilities that add
// up to 1. Returns how many, or a negative status.
LLAMA_API int32_t specee_rows_distribution(specee_rows * rows, int32_t i, struct llama_sampler * chain,
                                           int32_t preselect, int32_t capacity, llama_token * tokens, float * probs);

// ---- the rule behind specee_rows_threads, for tests: see threads.h -------------------------------------------------

typedef struct specee_thread_rule specee_thread_rule;

LLAMA_API specee_thread_rule * specee_thread_rule_init(int32_t n_cores, int32_t n_threads);
LLAMA_API int32_t specee_thread_rule_decide(specee_thread_rule * rule, double seconds, double idle, double own);
LLAMA_API void    specee_thread_rule_free(specee_thread_rule * rule);

#ifdef __cplusplus
}
#endif
