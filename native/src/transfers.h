// What crosses between the host's memory and that of devices. Counted where a graph is built, so that a computation
// adds a few numbers; on a CPU nothing is looked at.
#pragma once

#include "specee.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <array>
#include <unordered_map>

void specee_add(specee_transfers & sum, const specee_transfers & more);

// What each node of a graph reads, before a scheduler puts copies in its place. By node: it may change their order too.
using specee_sources_of = std::unordered_map<const ggml_tensor *, std::array<const ggml_tensor *, GGML_MAX_SRC>>;
specee_sources_of specee_sources(ggml_cgraph * gf);

// What one computation of the graph moves, now that it is allocated, and how often the host waits meanwhile.
specee_transfers specee_count_copies(ggml_cgraph * gf, const specee_sources_of & sources);

// Reads part of a tensor that was computed, or is being computed: it is there once the scheduler is synchronised. Not
// counted as a wait, which is that one.
void specee_read(ggml_backend_sched_t sched, ggml_tensor * tensor, void * to, size_t offset, size_t size,
                 specee_transfers & transfers);
