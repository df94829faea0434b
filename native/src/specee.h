// The C ABI of specee-chat: rows in flight over the layers of a llama.cpp model.
//
// A slot is one conversation: a sequence of committed tokens, and rows in flight after them. A row is a token at a
// position of a slot. It has an id (ascending, unique in a context, never used twice), a parent row, which stands one
// position before it, and a depth, the number of layers done. Rows in flight advance in batches from one layer to
// another, stop anywhere, and go on later; then they are committed into the slot's sequence, or dropped.
//
// The rows in flight of a slot are a tree. The first child of each row continues the principal chain, which begins at
// the committed tip; all other rows are side rows. A row of the chain has the bits that its token has alone, whatever
// stands beside it. A side row sees the committed tokens and its own ancestors, as it must; but its K and V stand
// behind those of the chain, softmax and sums over V take them in that order, and so its last bits may differ. So it is
// never committed: where a side row's token is accepted, it is appended again, and recomputed.
//
// The hidden states of recent rows stay in here until newer rows take their entries; an entry stores its row's id, so
// an old id is unknown and never answers for another row.
//
// Status codes: 0 is success, a negative value is an error, and specee_last_error() says what happened (per thread). A
// call that returns SPECEE_INVALID, SPECEE_UNSUPPORTED or SPECEE_NO_SPACE has changed nothing. No C++ exception leaves
// these functions.
#pragma once

#include "llama.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPECEE_ABI_VERSION 11
#define SPECEE_K_MAX 16 // most candidates of a row, and most guesses of the draft head

enum specee_status {
    SPECEE_OK          = 0,
    SPECEE_INVALID     = -1, // the arguments contradict the state
    SPECEE_UNSUPPORTED = -2, // this model, or this library, cannot do that
    SPECEE_NO_SPACE    = -3, // the window or the KV cache is full
    SPECEE_FAILED      = -4, // the backend could not compute, or there was no memory
    SPECEE_CANCELLED   = -5, // specee_rows_cancel() was called during the computation
};

enum specee_advance_flags {
    SPECEE_LOGITS  = 1, // only with end = n_layer: also norm and LM head, one row of logits for each row
    SPECEE_KV_ONLY = 2, // propagate KV: only norm, K and V of each layer, all from the row's present hidden state
};

// What can be done with a model in a context, each with all before it. It is proven when a context is opened: some
// tokens are computed whole, several at once, and in ranges of layers, and the bits must be equal (proof.cpp).
enum specee_level {
    SPECEE_LEVEL_DENSE  = 0, // one row after the other
    SPECEE_LEVEL_DRAFTS = 1, // several whole rows in one pass get the bits that each has alone, and can be dropped
    SPECEE_LEVEL_RANGES = 2, // rows run in ranges of layers, and their hidden states can be read
    SPECEE_LEVEL_EXITS  = 3, // what the LM head makes of a hidden state is known: lenses, probes, draft heads
};

typedef struct specee_rows specee_rows; // the slots and rows of one llama_context

LLAMA_API int32_t      specee_abi_version(void);
LLAMA_API const char * specee_build_info(void); // "key=value" pairs separated by ';'
LLAMA_API const char * specee_last_error(void);
// SPECEE_OK when so much memory, and some for small parts, can still be had; there is then no last error. To be asked
// before llama.cpp opens a model or a context: without memory its C code ends the process.
LLAMA_API int32_t specee_memory_left(int64_t bytes);

// The most that can be expected of an architecture (general.architecture of a GGUF file), before a model of it is
// opened: a specee_level, with the reason as last error where it is less than all.
LLAMA_API int32_t specee_architecture_level(const char * arch);
// llama_tokenize, whose exceptions (a text that the vocabulary has no tokens for) become SPECEE_FAILED. `n_tokens` gets
// their number; beyond `capacity` nothing is written.
LLAMA_API int32_t specee_tokenize(const struct llama_vocab * vocab, int32_t n_text, const char * text,
                                  int32_t add_special, int32_t parse_special, int32_t capacity, llama_token * tokens,
                                  int32_t * n_tokens);
// llama_token_to_piece in the same way: the bytes that a token stands for; of control tokens, if `special`, their
// names.
LLAMA_API int32_t specee_token_piece(const struct llama_vocab * vocab, llama_token token, int32_t special,
                                     int32_t capacity, char * text, int32_t * n_bytes);
// The name of the device that has a layer's weights, from 0 on; n_layer stands for the LM head. NULL for no layer.
LLAMA_API const char * specee_layer_device(const struct llama_model * model, int32_t layer);
// How many rows in one batch get the bits that each has alone, at most: see specee_rows_max_equal.
LLAMA_API int32_t specee_max_equal_rows(void);
// Whether this CPU has a kernel that takes so many rows through weights of a ggml_type at once: 1 or 0. n_in, n_out:
// the matrix, as in its file. Without one they go row by row, each as long as one alone, with the same bits.
LLAMA_API int32_t specee_has_kernel(int32_t type, int64_t n_in, int64_t n_out);

// model_path: the GGUF file of the context's model; rows of its LM head and embeddings are read from there. n_rows_max:
// the largest batch of rows, and the most rows in flight of a slot; graph_cache_max: how many built graphs are kept
// (least recently used go first). The handle must be freed before its context. NULL on failure.
//
// The context's sequences 0 to n_seq_max - 1 are the slots; each has its own window of n_ctx / n_seq_max tokens.
//
// proven, proven_rows, limit: specee_rows_level, specee_rows_max_equal and specee_rows_limit of an earlier proof for
// this model, these parameters and this library; -1, 0, NULL: it is proven now, which takes some ten tokens' time, and
// some sixty's where another device than a CPU computes. Below SPECEE_LEVEL_RANGES rows run whole: they are appended,
// advanced from depth 0 to n_layer and committed; what needs a higher level is SPECEE_UNSUPPORTED.
LLAMA_API specee_rows * specee_rows_init(struct llama_context * ctx, const char * model_path, int32_t n_rows_max,
                                         int32_t graph_cache_max, int32_t proven, int32_t proven_rows,
                                         const char * limit);
LLAMA_API void          specee_rows_free(specee_rows * rows);
// A specee_level, and why it is not a higher one; empty where it is the highest.
LLAMA_API int32_t      specee_rows_level(const specee_rows * rows);
LLAMA_API const char * specee_rows_limit(const specee_rows * rows);
// How many rows in one batch get the bits that each has alone: 1 below SPECEE_LEVEL_DRAFTS.
LLAMA_API int32_t specee_rows_max_equal(const specee_rows * rows);

// ---- slots ---------------------------------------------------------------------------------------------------------

// Computes `tokens` after the committed tip at full depth, in one batch, and commits them; SPECEE_INVALID while the
// slot has rows in flight. With `want_logits` logits row 0 is the last token's, and that token gets a row: it is the
// slot's tip, whose final state is known.
LLAMA_API int32_t specee_rows_prefill(specee_rows * rows, llama_seq_id slot, int32_t n, const llama_token * tokens,
                                      int32_t want_logits);

// From now on what these n layers (1 to n_layer - 1) make of each token is kept, as 16-bit floats; what was kept before
// is forgotten. No bit of what is computed changes.
LLAMA_API int32_t specee_rows_keep_layers(specee_rows * rows, int32_t n, const int32_t * layers);
// How many of a slot's first committed tokens have such states: all up to one that was there before, or whose K/V were
// propagated.
LLAMA_API llama_pos specee_rows_n_layer_states(const specee_rows * rows, llama_seq_id slot);
// The states of n of them, from position `begin` on: out [n][layers, as they were given][n_embd].
LLAMA_API int32_t specee_rows_layer_states(const specee_rows * rows, llama_seq_id slot, llama_pos begin, int32_t n,
                                           float * out);

// A new row in flight at depth 0. `parent`: a row in flight of this slot, or the committed tip (its id, or -1). Nothing
// is computed. Returns the row's id or a negative status. A slot whose side rows were computed takes no more rows
// (SPECEE_UNSUPPORTED) until a commit or a roll back.
LLAMA_API int32_t specee_rows_append(specee_rows * rows, llama_seq_id slot, int32_t parent, llama_token token);

// The path from the committed tip to row `id` becomes the slot's sequence: all of it must be complete (n_layer deep).
// The slot's other rows in flight are dropped. A side row is SPECEE_UNSUPPORTED.
LLAMA_API int32_t specee_rows_commit(specee_rows * rows, int32_t id);
// The same, but the rows after it on the principal chain stay in flight. SPECEE_UNSUPPORTED where there are side rows.
LLAMA_API int32_t specee_rows_commit_first(specee_rows * rows, int32_t id);

// One token of dense decoding in one call: appended at the tip, through all layers with logits (row 0), committed.
// SPECEE_UNSUPPORTED while rows are in flight. Returns the row's id, or a negative status: then nothing has changed.
LLAMA_API int32_t specee_rows_forward(specee_rows * rows, llama_seq_id slot, llama_token token);

// Cuts the committed sequence to `length` and drops all rows in flight; with the present length it only drops.
LLAMA_API int32_t specee_rows_roll_back(specee_rows * rows, llama_seq_id slot, llama_pos length);

LLAMA_API llama_pos specee_rows_length(const specee_rows * rows, llama_seq_id slot);    // committed positions
LLAMA_API int32_t   specee_rows_in_flight(const specee_rows * rows, llama_seq_id slot); // number of rows in flight
// Id of the last committed row, -1 when it is not kept.
LLAMA_API int32_t specee_rows_tip(const specee_rows * rows, llama_seq_id slot);

// ---- rows ----------------------------------------------------------------------------------------------------------

// Advances n rows in flight of equal depth to depth `end`: of one slot or of several, in any order. Every ancestor in
// flight that is not in the batch must be at least `end` deep. Side rows go from 0 to n_layer at once. Rows of several
// slots are at most specee_rows_max_equal() in all, so that each has the bits that it has when its slot runs alone.
// After a failure the rows are as deep as before.
LLAMA_API int32_t specee_rows_advance(specee_rows * rows, int32_t n, const int32_t * ids, int32_t end, uint32_t flags);

// Several batches at once: counts[i] of the ids, in their order, go to depth ends[i], as in specee_rows_advance. Their
// ranges of layers have none in common, and stand from the last one to the first one. Ranges on different devices run
// at the same time. Ancestors must be deep enough before the call, or in the same batch. With SPECEE_LOGITS the batch
// that goes to n_layer has logits. After a failure all rows are as deep as before.
LLAMA_API int32_t specee_rows_advance_stages(specee_rows * rows, int32_t n, const int32_t * counts, const int32_t * ids,
                                             const int32_t * ends, uint32_t flags);

// Runs the deferred layers of all rows of a slot's principal chain; rows join where their depths meet. With
// SPECEE_LOGITS, logits row i is that of the i-th row that was not complete before. SPECEE_OK when there is nothing to
// do.
LLAMA_API int32_t specee_rows_complete(specee_rows * rows, llama_seq_id slot, uint32_t flags);

// Advances row `id`, the last one of its principal chain, from layer to layer (ascending, all beyond its depth) and
// probes it at each, until its score is above the threshold. Rows before it join where it passes them. k > 0: the score
// is the predictor's for `candidates` [k]; k = 0: it is the margin rule's lead, and `best` its token. Returns the index
// of the layer where it stopped, or n_layers (the row is then at the last of them), or a negative status; `scores` gets
// one value for each probe.
LLAMA_API int32_t specee_rows_run_to_exit(specee_rows * rows, int32_t id, int32_t n_layers, const int32_t * layers,
                                          int32_t k, const llama_token * candidates, float threshold, float * scores,
                                          llama_token * best);

// Scores in [0,1] of n rows at their present depths, whose lenses and predictors are set: candidates [n][k], scores
// [n]. `features` may be NULL, else it gets the inputs [n][3k]: k logits, k probabilities (softmax over the
// candidates), k changes of these probabilities since the previous probe of this row (the first one: since the uniform
// 1/k).
LLAMA_API int32_t specee_rows_probe(specee_rows * rows, int32_t n, const int32_t * ids, int32_t k,
                                    const llama_token * candidates, float * scores, float * features);

// Final norm and LM head of one row's hidden state seen through the lens of its depth (the state itself at n_layer).
LLAMA_API int32_t specee_rows_lens_head(specee_rows * rows, int32_t id);

// The k best guesses of the linear draft head, best first, for the token after `token`, which follows row `id` (the
// row whose final state, or lens estimate of it, chose `token`).
LLAMA_API int32_t specee_rows_draft(specee_rows * rows, int32_t id, llama_token token, int32_t k, llama_token * out);

// Layers done of a known row; -1 for an unknown one.
LLAMA_API int32_t specee_rows_depth(const specee_rows * rows, int32_t id);
// Hidden state of a row at its depth, or where its K/V were propagated from: [n_embd], NULL when it is not kept. Valid
// until the next call that computes.
LLAMA_API const float * specee_rows_hidden(const specee_rows * rows, int32_t id);
// Logits of a slot's i-th row in the last call that made logits: [n_vocab], valid until the next one. NULL where there
// are none, or a call failed that was to make them.
LLAMA_API const float * specee_rows_logits(specee_rows * rows, llama_seq_id slot, int32_t i);

// ---- control -------------------------------------------------------------------------------------------------------

// Makes a computation under way in another thread stop soon; cleared by the next call of specee_rows_resume.
LLAMA_API void specee_rows_cancel(specee_rows * rows);
LLAMA_API void specee_rows_resume(specee_rows * rows);

// Threads that the next computation takes: those of the context, fewer while other processes keep their cores busy.
LLAMA_API int32_t specee_rows_threads(specee_rows * rows);
// From now on exactly n threads, whatever other processes do; 0: as before.
LLAMA_API void specee_rows_fix_threads(specee_rows * rows, int32_t n);
// At most n threads for a single row, whose time is that of reading memory (see thread_tuning.py).
LLAMA_API void specee_rows_limit_single_row(specee_rows * rows, int32_t n);

// ---- weights of lenses, predictors and drafts ----------------------------------------------------------------------

// Lens of an exit layer: x = h / rms(h); h' = up (down x) + bias, an estimate of the last layer's output divided by its
// rms. `down` [rank][n_embd] and `up` [n_embd][rank] are Q8_0 blocks, bias [n_embd] is F32; rank and n_embd are
// multiples of 32. Without `up` (NULL) the rank is n_embd and h' = down x + bias. The data is copied; the lens becomes
// part of the graphs that end at its layer.
LLAMA_API int32_t specee_lens_set(specee_rows * rows, int32_t layer, int32_t rank, const void * down, const void * up,
                                  const float * bias);

// Predictor of an exit layer: features [3k] -> ReLU(w1 f + b1) [n_hidden] -> sigmoid(w2 . + b2). w1 is [n_hidden][3k].
LLAMA_API int32_t specee_predictor_set(specee_rows * rows, int32_t layer, int32_t k, int32_t n_hidden, const float * w1,
                                       const float * b1, const float * w2, float b2);

// Shortlist: up [n_short][n_embd] (specee_head_rows, as Q8_0) times h' / rms(h') are the logits of these tokens at any
// layer with a lens. The margin rule exits on the lead, the difference of the two greatest probabilities.
LLAMA_API int32_t specee_shortlist_set(specee_rows * rows, int32_t n_short, const llama_token * tokens,
                                       const void * up);

// Linear draft head: z = down [x ; e], where x is the final state (or its lens estimate) of a row divided by its rms,
// and e the embedding of the token after it divided by its rms; down is [rank][2 n_embd]; scores of a shortlist of
// n_short tokens: up z + bias, with up [n_short][rank] as Q8_0.
LLAMA_API int32_t specee_draft_set(specee_rows * rows, int32_t rank, const void * down, int32_t n_short,
                                   const llama_token * tokens, const void * up, const float * bias);

// Embedding rows of n tokens: out [n][n_embd] (calibration).
LLAMA_API int32_t specee_embedding_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out);
// Rows of the LM head times the final norm's weight and what scales logits: out [n][n_embd]; and what is added to their
// products: constants [n], or NULL (calibration). With `cap` of specee_head_shape, a logit is cap tanh(product +
// constant).
LLAMA_API int32_t specee_head_rows(const specee_rows * rows, int32_t n, const llama_token * tokens, float * out,
                                   float * constants);
// centred: not 0 where the final norm takes off the mean before it divides; cap: 0 where logits are not capped.
LLAMA_API int32_t specee_head_shape(const specee_rows * rows, int32_t * centred, float * cap);

// ---- EAGLE-3 heads: small models that draft from the hidden states of another --------------------------------------

typedef struct specee_eagle_head specee_eagle_head;

// ctx: a context of an EAGLE-3 model, with the target's context as its ctx_other. The head drafts for a slot of the
// target, which keeps the states of the layers that the head reads, and takes as many threads as the target has. Free
// the head before both. NULL on failure.
LLAMA_API specee_eagle_head * specee_eagle_head_init(struct llama_context * ctx, specee_rows * target,
                                                     llama_seq_id slot);
LLAMA_API void                specee_eagle_head_free(specee_eagle_head * head);
// Reads n tokens, the first of which stands after those read before (at first: after the text's first token). For each
// the head takes the states of the token before it: the slot's, or where features [n][layers * n_embd of the target]
// are given these, one layer's after the other.
LLAMA_API int32_t specee_eagle_head_read(specee_eagle_head * head, int32_t n, const llama_token * tokens,
                                         const float * features);
// Reads a token before which the target has computed nothing yet: a drafted one.
LLAMA_API int32_t specee_eagle_head_extend(specee_eagle_head * head, llama_token token);
// Forgets all but the first `length` tokens that were read.
LLAMA_API int32_t specee_eagle_head_roll_back(specee_eagle_head * head, llama_pos length);
// The most probable token after the one that was read last, and its probability among those that the head knows.
// SPECEE_INVALID when that one was forgotten, or when reading failed.
LLAMA_API int32_t specee_eagle_head_best(const specee_eagle_head * head, llama_token * token, float * prob);

// ---- sampling: llama.cpp's samplers over one row of logits ---------------------------------------------------------

// A grammar in GBNF, whose rule "root" an answer keeps to. It follows the answer's tokens.
typedef struct specee_grammar specee_grammar;

// NULL where the text cannot be read: llama.cpp's log has the place.
LLAMA_API specee_grammar * specee_grammar_init(const struct llama_vocab * vocab, const char * text);
LLAMA_API void             specee_grammar_free(specee_grammar * grammar);
// 1 when the token may follow, else 0.
LLAMA_API int32_t specee_grammar_allows(const specee_grammar * grammar, llama_token token);
// The answer's next token. SPECEE_INVALID when it may not follow.
LLAMA_API int32_t specee_grammar_accept(specee_grammar * grammar, llama_token token);
// Forgets all but the first n tokens of the answer.
LLAMA_API int32_t specee_grammar_rewind(specee_grammar * grammar, int32_t n);

// llama_sampler_accept and llama_sampler_reset, whose exceptions become SPECEE_FAILED.
LLAMA_API int32_t specee_sampler_accept(struct llama_sampler * sampler, llama_token token);
LLAMA_API int32_t specee_sampler_reset(struct llama_sampler * sampler);

// How a row of logits is shaped, in this order; what is NULL changes nothing. No chain may pick a token itself.
typedef struct specee_shaping {
    // Changes logits: biases, penalties.
    struct llama_sampler * logits;
    // Forbids tokens. It looks at the greatest logits only, as far as `n_wanted` and `min_p` say.
    const specee_grammar * grammar;
    // Cuts tokens off, and divides by the temperature.
    struct llama_sampler * filters;
    // > 0, without a grammar: only so many of the greatest logits are shaped. Exact when `logits` raises none of them
    // and `filters` needs no more (top-k plus those that are lowered).
    int32_t preselect;
    // With a grammar: enough tokens are allowed when there are so many (0: all that are allowed), or when those that
    // are left have less than min_p of the best one's probability.
    int32_t n_wanted;
    float   min_p;
} specee_shaping;

// SPECEE_FAILED when logits are no numbers (a damaged model), or when no token is left.

// The token with the greatest logit of a slot's row i after `logits` and the grammar; `shaping` may be NULL.
LLAMA_API int32_t specee_rows_greedy(specee_rows * rows, llama_seq_id slot, int32_t i, const specee_shaping * shaping,
                                     llama_token * out);
// The distribution of a slot's row i after the shaping: at most `capacity` tokens, most probable first, with
// probabilities that add up to 1. Returns how many, or a negative status.
LLAMA_API int32_t specee_rows_distribution(specee_rows * rows, llama_seq_id slot, int32_t i,
                                           const specee_shaping * shaping, int32_t capacity, llama_token * tokens,
                                           float * probs);

// ---- for tests only ------------------------------------------------------------------------------------------------

// The next computation stops in its middle and begins again, as when other processes took a core meanwhile. Returns how
// many have done so before.
LLAMA_API int32_t specee_rows_stop_next(specee_rows * rows);

// What crossed between the memory of the host and that of devices since the rows were opened, and how often the host
// waited for a device: the numbers of tensors or parts of them, and bytes. Nothing on a CPU. What llama.cpp decodes
// (prompts) is not counted.
typedef struct specee_transfers {
    int64_t n_to_device;
    int64_t bytes_to_device;
    int64_t n_to_host;
    int64_t bytes_to_host;
    int64_t n_between; // from one device to another
    int64_t bytes_between;
    int64_t n_waits;
} specee_transfers;

LLAMA_API int32_t specee_rows_transfers(const specee_rows * rows, specee_transfers * transfers);

// Whether the device that computes logits selects the greatest ones of a row, so that the host gets all of them only
// where they are asked for: 0 where that is faster, which is measured (the default), > 0 on all devices, < 0 on none.
LLAMA_API int32_t specee_rows_select_on_devices(specee_rows * rows, int32_t which);

// The rule behind specee_rows_threads: see threads.h.
typedef struct specee_thread_rule specee_thread_rule;

LLAMA_API specee_thread_rule * specee_thread_rule_init(int32_t n_cores, int32_t n_threads);
LLAMA_API int32_t specee_thread_rule_decide(specee_thread_rule * rule, double seconds, double idle, double own);
LLAMA_API void    specee_thread_rule_free(specee_thread_rule * rule);

#ifdef __cplusplus
}
#endif
