#include "grammar.h"

#include "error.h"

#include <cmath>
#include <stdexcept>

static llama_sampler_ptr parse(const llama_vocab * vocab, const std::string & text) {
    llama_sampler_ptr made(llama_sampler_init_grammar(vocab, text.c_str(), "root"));
    if (made == nullptr || text.empty()) { // an empty text would allow everything
        throw std::runtime_error("the grammar cannot be read");
    }
    return made;
}

void specee_grammar::forbid(llama_token_data * tokens, size_t n) const {
    llama_token_data_array array = { tokens, n, -1, false };
    llama_sampler_apply(now.get(), &array);
}

static bool allows(const specee_grammar & grammar, llama_token token) {
    llama_token_data one = { token, 0.0f, 0.0f };
    grammar.forbid(&one, 1);
    return !std::isinf(one.logit);
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

specee_grammar * specee_grammar_init(const llama_vocab * vocab, const char * text) {
    return specee_guard((specee_grammar *) nullptr, [&]() -> specee_grammar * {
        if (!specee_given(vocab, text)) {
            return nullptr;
        }
        auto made     = std::make_unique<specee_grammar>();
        made->vocab   = vocab;
        made->text    = text;
        made->now     = parse(vocab, made->text);
        made->earlier = parse(vocab, made->text);
        return made.release();
    });
}

void specee_grammar_free(specee_grammar * grammar) {
    delete grammar;
}

int32_t specee_grammar_allows(const specee_grammar * grammar, llama_token token) {
    return specee_entry(grammar, [&] { return (int32_t) allows(*grammar, token); });
}

int32_t specee_grammar_accept(specee_grammar * grammar, llama_token token) {
    return specee_entry(grammar, [&] {
        if (!allows(*grammar, token)) { // llama.cpp would abort
            return specee_fail(SPECEE_INVALID, "the grammar forbids token " + std::to_string(token));
        }
        grammar->accepted.push_back(token);
        llama_sampler_accept(grammar->now.get(), token);
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_grammar_rewind(specee_grammar * grammar, int32_t n) {
    return specee_entry(grammar, [&] {
        auto & accepted = grammar->accepted;
        if (n < 0 || (size_t) n > accepted.size()) {
            return specee_fail(SPECEE_INVALID, "the grammar has not accepted so many tokens");
        }
        if ((size_t) n == accepted.size()) {
            return (int32_t) SPECEE_OK;
        }
        if ((size_t) n < grammar->n_earlier) {
            grammar->earlier   = parse(grammar->vocab, grammar->text);
            grammar->n_earlier = 0;
        }
        while (grammar->n_earlier < (size_t) n) {
            llama_sampler_accept(grammar->earlier.get(), accepted[grammar->n_earlier++]);
        }
        grammar->now.reset(llama_sampler_clone(grammar->earlier.get()));
        accepted.resize(n);
        return (int32_t) SPECEE_OK;
    });
}
