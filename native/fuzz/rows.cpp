// Fuzz target: any calls of the C ABI, in any order, with any arguments, and now and then without memory.
//
// The input is a program: a byte for the call, bytes for its arguments. What must hold: no crash, no exception, a call
// that is refused changes nothing, and in the end each slot gives, bit for bit, what its committed tokens give in a
// context where nothing else has ever happened.
#include "specee.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

// ---- memory that ends ----------------------------------------------------------------------------------------------

static int64_t n_left = -1; // allocations until one fails; less than 0: none does

void * operator new(size_t size) {
    if (n_left >= 0 && n_left-- == 0) {
        throw std::bad_alloc();
    }
    void * memory = std::malloc(size > 0 ? size : 1);
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    return memory;
}
void * operator new(size_t size, const std::nothrow_t &) noexcept {
    return n_left >= 0 && n_left-- == 0 ? nullptr : std::malloc(size > 0 ? size : 1);
}
void operator delete(void * memory) noexcept {
    std::free(memory);
}
void operator delete(void * memory, size_t) noexcept {
    std::free(memory);
}

// ---- the input -----------------------------------------------------------------------------------------------------

class Bytes {
  public:
    Bytes(const uint8_t * data, size_t size) : at(data), end(data + size) {}

    bool    empty() const { return at == end; }
    uint8_t next() { return empty() ? 0 : *at++; }
    int32_t below(int32_t n) { return next() % n; }

    // Mostly a small number, sometimes one that nobody expects.
    int32_t number() {
        const uint8_t b = next();
        switch (b) {
            case 255: return std::numeric_limits<int32_t>::max();
            case 254: return std::numeric_limits<int32_t>::min();
            case 253: return -1;
            case 252: return 1 << 20;
            default: return b;
        }
    }

  private:
    const uint8_t * at;
    const uint8_t * end;
};

// ---- what is called ------------------------------------------------------------------------------------------------

static constexpr int32_t N_SLOTS = 3, N_CTX = 256, N_ROWS = 8;

static void require(bool holds, const char * what) {
    if (!holds) {
        std::fprintf(stderr, "broken: %s; last error: %s\n", what, specee_last_error());
        std::abort();
    }
}

static llama_context * new_context(llama_model * model, int32_t n_slots) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx                = N_CTX * n_slots;
    params.n_seq_max            = n_slots;
    params.kv_unified           = false;
    params.n_batch = params.n_ubatch = 32;
    params.n_threads = params.n_threads_batch = 1; // memory that ends, ends in this thread
    params.flash_attn_type                    = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.no_perf                            = true;
    llama_context * ctx                       = llama_init_from_model(model, params);
    require(ctx != nullptr, "a context");
    return ctx;
}

struct Model {
    const char *    path = std::getenv("SPECEE_FUZZ_MODEL");
    llama_model *   model;
    llama_context * fuzzed;
    llama_context * reference_ctx;
    specee_rows *   reference;
    int32_t         n_vocab, n_layer, n_embd;

    Model() {
        require(path != nullptr, "SPECEE_FUZZ_MODEL names a tiny model (tests/native/tiny_gguf.py writes one)");
        llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
        llama_backend_init();
        model = llama_model_load_from_file(path, llama_model_default_params());
        require(model != nullptr, "the model can be opened");
        n_vocab       = llama_vocab_n_tokens(llama_model_get_vocab(model));
        n_layer       = llama_model_n_layer(model);
        n_embd        = llama_model_n_embd(model);
        fuzzed        = new_context(model, N_SLOTS);
        reference_ctx = new_context(model, 1);
        reference     = specee_rows_init(reference_ctx, path, N_ROWS, 16, -1, 0, nullptr);
        require(reference != nullptr && specee_rows_level(reference) == SPECEE_LEVEL_EXITS, "rows of the reference");
    }
};

// A slot as its caller sees it.
struct Slot {
    std::vector<llama_token> committed;
    std::vector<llama_token> chain;           // of the rows in flight
    std::vector<int32_t>     ids;             // the same
    bool                     is_exact = true; // no K/V were propagated
    std::vector<int32_t>     propagated;
};

class Session {
  public:
    Session(const Model & m, Bytes & bytes) : m(m), in(bytes), slots(N_SLOTS) {
        llama_memory_clear(llama_get_memory(m.fuzzed), true);
        rows = specee_rows_init(m.fuzzed, m.path, N_ROWS, 1 + in.below(8), SPECEE_LEVEL_EXITS, specee_max_equal_rows(),
                                "");
        require(rows != nullptr, "rows");
        penalties = llama_sampler_init_penalties(m.n_vocab, 8, 1.3f, 0, 0);
        filters   = llama_sampler_chain_init(llama_sampler_chain_default_params());
        llama_sampler_chain_add(filters, llama_sampler_init_top_k(8));
        llama_sampler_chain_add(filters, llama_sampler_init_temp(0.7f));
        grammar = specee_grammar_init(llama_model_get_vocab(m.model), "root ::= (\"a\" [b-y]* \"z\")* [A-Z]?");
        require(grammar != nullptr, "a grammar");
        logits.resize(m.n_vocab);
        outputs.resize(256);
        some.reserve(m.n_vocab);
        ids.reserve(64);
        floats.assign((size_t) 64 * m.n_embd, 0.01f);
        blocks.assign((size_t) 64 * m.n_embd * 4, 0);
    }

    ~Session() {
        specee_grammar_free(grammar);
        llama_sampler_free(penalties);
        llama_sampler_free(filters);
        specee_rows_free(rows);
    }

    void run() {
        while (!in.empty()) {
            call();
        }
        for (int32_t s = 0; s < N_SLOTS; ++s) {
            check_slot(s);
        }
    }

  private:
    const Model &            m;
    Bytes &                  in;
    specee_rows *            rows;
    llama_sampler *          penalties;
    llama_sampler *          filters;
    specee_grammar *         grammar;
    specee_shaping           shaping = {};
    std::vector<Slot>        slots;
    std::vector<float>       logits, floats, outputs;
    std::vector<uint8_t>     blocks;
    std::vector<int32_t>     known; // ids that were given
    std::vector<llama_token> some;  // arguments
    std::vector<int32_t>     ids;

    int32_t slot() { return in.next() < 250 ? in.below(N_SLOTS) : in.number(); }
    int32_t token() { return in.next() < 250 ? in.below(m.n_vocab) : in.number(); }
    int32_t layer() { return in.next() < 250 ? in.below(m.n_layer + 1) : in.number(); }
    int32_t id() {
        return known.empty() || in.next() > 250
                   ? in.number()
                   : known[known.size() - 1 - in.below((int32_t) std::min<size_t>(known.size(), 24))];
    }
    template <typename T> T * maybe(T * pointer) { return in.next() > 250 ? nullptr : pointer; }

    const llama_token * tokens(int32_t n) {
        some.resize(std::clamp(n, 1, 64));
        for (llama_token & t : some) {
            t = token();
        }
        return maybe(some.data());
    }

    // What a caller sees; a refused call must leave it as it was.
    std::vector<int32_t> seen() const {
        std::vector<int32_t> all;
        for (int32_t s = 0; s < N_SLOTS; ++s) {
            all.push_back(specee_rows_length(rows, s));
            all.push_back(specee_rows_in_flight(rows, s));
            all.push_back(specee_rows_tip(rows, s));
        }
        for (size_t i = known.size() - std::min<size_t>(known.size(), 24); i < known.size(); ++i) {
            all.push_back(specee_rows_depth(rows, known[i]));
        }
        return all;
    }

    const specee_shaping * new_shaping() {
        shaping = { maybe(penalties), in.next() < 128 ? nullptr : grammar,
                    maybe(filters),   in.number(),
                    in.number(),      0.1f };
        return in.next() < 60 ? nullptr : &shaping;
    }

    // A call, perhaps one to which memory runs out.
    template <typename F> int32_t called(F && call, bool may_fail = false) {
        const auto    before = seen();
        const bool    starve = in.next() > 220;
        const int32_t when   = in.next();
        n_left               = starve ? when : -1;
        const int32_t status = call();
        n_left               = -1;
        if (status < 0) {
            require(specee_last_error()[0] != 0, "a refusal has a reason");
            require(status >= SPECEE_CANCELLED, "a status is one of the known ones");
            require(status != SPECEE_FAILED || starve || may_fail, "only a lack of memory makes a call fail");
        }
        if (status == SPECEE_INVALID || status == SPECEE_UNSUPPORTED || status == SPECEE_NO_SPACE) {
            require(seen() == before, "a refused call changes nothing");
        }
        return status;
    }

    void commit_chain(Slot & s, size_t n, bool keep_rest) {
        for (size_t i = 0; i < n; ++i) {
            s.is_exact &= std::count(s.propagated.begin(), s.propagated.end(), s.ids[i]) == 0;
        }
        s.committed.insert(s.committed.end(), s.chain.begin(), s.chain.begin() + n);
        if (keep_rest) {
            s.chain.erase(s.chain.begin(), s.chain.begin() + n);
            s.ids.erase(s.ids.begin(), s.ids.begin() + n);
        } else {
            drop(s);
        }
    }

    static void drop(Slot & s) {
        s.chain.clear();
        s.ids.clear();
        s.propagated.clear();
    }

    void call() {
        llama_token   best = 0;
        const uint8_t what = in.next();
        const int32_t at   = slot();
        Slot *        s    = at >= 0 && at < N_SLOTS ? &slots[at] : nullptr;
        switch (what % 32) {
            case 0: {
                const int32_t n      = in.next() < 240 ? 1 + in.below(8) : in.number();
                const auto *  toks   = tokens(n);
                const int32_t given  = std::min<int32_t>(n, (int32_t) some.size());
                const int32_t status = called([&] { return specee_rows_prefill(rows, at, given, toks, 1); });
                if (status == SPECEE_OK) {
                    s->committed.insert(s->committed.end(), toks, toks + given);
                    s->is_exact &= given <= specee_max_equal_rows();
                }
                break;
            }
            case 1:
            case 2:
            case 3:
            case 4: {
                const llama_token t   = token();
                const int32_t parent  = s != nullptr && in.next() < 200 ? (s->ids.empty() ? -1 : s->ids.back()) : id();
                const bool    extends = s != nullptr && (s->ids.empty() || parent == s->ids.back());
                const int32_t row     = called([&] { return specee_rows_append(rows, at, parent, t); });
                if (row >= 0) {
                    require(known.empty() || row > known.back(), "ids ascend");
                    known.push_back(row);
                    if (extends) {
                        s->ids.push_back(row);
                        s->chain.push_back(t);
                    }
                }
                break;
            }
            case 5:
            case 6:
            case 7: {
                const int32_t n = in.next() < 250 ? 1 + in.below(4) : in.number();
                ids.clear();
                for (int32_t i = 0; i < std::clamp(n, 1, 64); ++i) {
                    ids.push_back(id());
                }
                const int32_t  end   = in.next() < 100 ? m.n_layer : layer();
                const uint32_t flags = in.next() < 200 ? (end == m.n_layer ? SPECEE_LOGITS : 0) : in.next();
                const auto *   these = maybe(ids.data());
                if (called([&] { return specee_rows_advance(rows, std::min<int32_t>(n, 64), these, end, flags); }) ==
                        SPECEE_OK &&
                    (flags & SPECEE_KV_ONLY) != 0) {
                    for (Slot & each : slots) {
                        each.propagated.insert(each.propagated.end(), ids.begin(), ids.end());
                    }
                }
                break;
            }
            case 8: {
                ids.clear();
                for (int32_t i = 0; i < 4; ++i) {
                    ids.push_back(id());
                }
                const int32_t  n         = in.next() < 230 ? 2 : std::min(in.number(), 2);
                const int32_t  counts[2] = { 1 + in.below(2), in.below(3) };
                const int32_t  ends[2]   = { in.next() < 200 ? m.n_layer : layer(), layer() };
                const uint32_t flags     = in.next() < 230 ? SPECEE_LOGITS : in.next();
                called([&] {
                    return specee_rows_advance_stages(rows, n, maybe(counts), maybe(ids.data()), maybe(ends), flags);
                });
                break;
            }
            case 9:
            case 10:
                called([&] { return specee_rows_complete(rows, at, in.next() < 240 ? SPECEE_LOGITS : in.next()); });
                break;
            case 11:
            case 12: {
                const int32_t row       = id();
                const bool    keep_rest = what % 32 == 12;
                if (called([&] {
                        return keep_rest ? specee_rows_commit_first(rows, row) : specee_rows_commit(rows, row);
                    }) == SPECEE_OK) {
                    for (Slot & each : slots) {
                        const auto found = std::find(each.ids.begin(), each.ids.end(), row);
                        if (found != each.ids.end()) {
                            commit_chain(each, (size_t) (found - each.ids.begin()) + 1, keep_rest);
                        }
                    }
                }
                break;
            }
            case 13:
            case 14:
            case 15: {
                const llama_token t   = token();
                const int32_t     row = called([&] { return specee_rows_forward(rows, at, t); });
                if (row >= 0) {
                    known.push_back(row);
                    s->committed.push_back(t);
                }
                break;
            }
            case 16: {
                const int32_t length =
                    s != nullptr && in.next() < 230 ? (int32_t) s->committed.size() - in.below(4) : in.number();
                if (called([&] { return specee_rows_roll_back(rows, at, length); }) == SPECEE_OK) {
                    s->committed.resize(length);
                    s->is_exact |= length == 0;
                    drop(*s);
                }
                break;
            }
            case 17: {
                const int32_t n = in.next() < 240 ? 1 : in.number(), k = in.next() < 240 ? 4 : in.number();
                ids.assign(64, id());
                const auto * candidates = tokens(64);
                called([&] {
                    return specee_rows_probe(rows, std::min(n, 4), ids.data(), std::min(k, 16), candidates,
                                             outputs.data(), maybe(outputs.data() + 8));
                });
                break;
            }
            case 18: {
                std::vector<int32_t> layers = { layer(), layer() };
                std::sort(layers.begin(), layers.end());
                const int32_t row = id(), k = in.next() < 128 ? 0 : in.number();
                const auto *  candidates = tokens(16);
                called([&] {
                    return specee_rows_run_to_exit(rows, row, std::min(in.number(), 2), maybe(layers.data()),
                                                   std::min(k, 16), candidates, 0.5f, outputs.data(), maybe(&best));
                });
                break;
            }
            case 19: called([&, row = id()] { return specee_rows_lens_head(rows, row); }); break;
            case 20: {
                const int32_t row = id(), t = token(), k = in.number();
                some.resize(64);
                called([&] { return specee_rows_draft(rows, row, t, k, maybe(some.data())); });
                break;
            }
            case 21:
                if (const float * state = specee_rows_hidden(rows, id())) {
                    std::copy_n(state, m.n_embd, outputs.begin());
                }
                break;
            case 22: {
                const int32_t i = in.number();
                if (const float * row = specee_rows_logits(rows, at, i)) {
                    std::copy_n(row, m.n_vocab, logits.begin());
                }
                break;
            }
            case 23:
                called(
                    [&] {
                        return specee_rows_greedy(rows, at, in.next() < 200 ? 0 : in.number(), new_shaping(),
                                                  maybe(&best));
                    },
                    shaping.grammar != nullptr);
                break;
            case 24: {
                some.resize(m.n_vocab);
                called(
                    [&] {
                        return specee_rows_distribution(rows, at, in.next() < 200 ? 0 : in.number(), new_shaping(),
                                                        std::min(in.number(), m.n_vocab), maybe(some.data()),
                                                        maybe(logits.data()));
                    },
                    true);
                const llama_token t = token();
                called([&] { return specee_grammar_accept(grammar, t); }, true);
                called([&] { return specee_grammar_rewind(grammar, in.number()); }, true);
                called([&] { return specee_sampler_accept(penalties, in.below(m.n_vocab)); });
                break;
            }
            case 25: {
                const int32_t l = layer(), rank = in.next() < 200 ? m.n_embd : in.number();
                const void *  up = in.next() < 128 ? nullptr : blocks.data();
                if (rank <= 64) {
                    called(
                        [&] { return specee_lens_set(rows, l, rank, maybe(blocks.data()), up, maybe(floats.data())); });
                }
                break;
            }
            case 26: {
                const int32_t l = layer(), k = in.number();
                called([&] {
                    return specee_predictor_set(rows, l, k, 8, floats.data(), maybe(floats.data()), floats.data(),
                                                0.5f);
                });
                break;
            }
            case 27: {
                some.assign(32, token());
                called([&] {
                    return specee_shortlist_set(rows, in.next() < 240 ? 32 : 3, maybe(some.data()), blocks.data());
                });
                break;
            }
            case 28: {
                some.assign(32, token());
                called([&] {
                    return specee_draft_set(rows, in.next() < 240 ? 32 : in.number() % 33, maybe(blocks.data()), 32,
                                            some.data(), maybe(blocks.data()), floats.data());
                });
                break;
            }
            case 29: {
                const int32_t l[2] = { layer(), layer() };
                called([&] { return specee_rows_keep_layers(rows, std::min(in.number(), 2), maybe(l)); });
                break;
            }
            case 30: {
                const int32_t      n = in.below(10);
                std::vector<float> out((size_t) 10 * 2 * m.n_embd);
                const llama_pos    from = in.number();
                called([&] { return specee_rows_layer_states(rows, at, from, n, maybe(out.data())); });
                called([&] { return specee_rows_n_layer_states(rows, in.number()); });
                called([&] { return specee_embedding_rows(rows, 1, tokens(1), maybe(out.data())); });
                called([&] { return specee_head_rows(rows, 1, tokens(1), maybe(out.data()), maybe(out.data())); });
                break;
            }
            case 31: {
                specee_rows_stop_next(rows);
                specee_rows_fix_threads(rows, 1);
                specee_rows_limit_single_row(rows, in.number());
                specee_rows_cancel(rows);
                const llama_token t      = token();
                const int32_t     status = called([&] { return specee_rows_forward(rows, at, t); });
                specee_rows_resume(rows);
                if (status >= 0) {
                    known.push_back(status);
                    s->committed.push_back(t);
                }
                break;
            }
        }
    }

    // The slot's next token is that of its committed tokens alone.
    void check_slot(int32_t at) {
        Slot & s = slots[at];
        require(specee_rows_length(rows, at) == (int32_t) s.committed.size(),
                "committed tokens are those that were given");
        require(specee_rows_roll_back(rows, at, (int32_t) s.committed.size()) == SPECEE_OK,
                "rows in flight are dropped");
        if (!s.is_exact || s.committed.size() >= N_CTX || s.committed.empty()) {
            return;
        }
        require(specee_rows_roll_back(m.reference, 0, 0) == SPECEE_OK, "the reference begins anew");
        for (const llama_token t : s.committed) {
            require(specee_rows_forward(m.reference, 0, t) >= 0, "the reference goes on");
        }
        for (specee_rows * each : { rows, m.reference }) {
            require(specee_rows_forward(each, each == rows ? at : 0, 5) >= 0, "a token more");
        }
        const float * mine  = specee_rows_logits(rows, at, 0);
        const float * alone = specee_rows_logits(m.reference, 0, 0);
        require(mine != nullptr && alone != nullptr, "logits");
        require(std::memcmp(mine, alone, m.n_vocab * sizeof(float)) == 0,
                "a slot's bits are those of its tokens alone");
    }
};

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    static const Model model;
    Bytes              bytes(data, size);
    Session(model, bytes).run();
    return 0;
}
