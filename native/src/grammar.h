// A grammar that an answer keeps to: llama.cpp's grammar sampler, with a way back.
#pragma once

#include "specee.h"

#include <memory>
#include <string>
#include <vector>

struct llama_sampler_deleter {
    void operator()(llama_sampler * sampler) const { llama_sampler_free(sampler); }
};
using llama_sampler_ptr = std::unique_ptr<llama_sampler, llama_sampler_deleter>;

struct specee_grammar {
    const llama_vocab *      vocab;
    std::string              text;
    std::vector<llama_token> accepted;
    llama_sampler_ptr        now;     // after all of `accepted`
    llama_sampler_ptr        earlier; // after the first `n_earlier` of them: where the last rewind went
    size_t                   n_earlier = 0;

    // Sets the logit of tokens that cannot follow to -infinity.
    void forbid(llama_token_data * tokens, size_t n) const;
};
