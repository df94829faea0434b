#include "transfers.h"

#include "rows.h"

#include "llama-graph.h"

#include <algorithm>
#include <unordered_set>

void specee_add(specee_transfers & sum, const specee_transfers & more) {
    sum.n_to_device += more.n_to_device;
    sum.bytes_to_device += more.bytes_to_device;
    sum.n_to_host += more.n_to_host;
    sum.bytes_to_host += more.bytes_to_host;
    sum.n_between += more.n_between;
    sum.bytes_between += more.bytes_between;
    sum.n_waits += more.n_waits;
}

specee_sources_of specee_sources(ggml_cgraph * gf) {
    specee_sources_of sources;
    for (int i = 0; i < ggml_graph_n_nodes(gf); ++i) {
        const ggml_tensor * node = ggml_graph_node(gf, i);
        std::copy(std::begin(node->src), std::end(node->src), sources[node].begin());
    }
    return sources;
}

static bool is_on_host(const ggml_tensor * t) {
    const ggml_tensor * const of = t->view_src == nullptr ? t : t->view_src;
    return of->buffer == nullptr || ggml_backend_buffer_is_host(of->buffer);
}

specee_transfers specee_count_copies(ggml_cgraph * gf, const specee_sources_of & sources) {
    specee_transfers                        found = {};
    std::unordered_set<const ggml_tensor *> copies;
    bool                                    is_busy = false; // a device: with nodes that nobody has waited for
    for (int i = 0; i < ggml_graph_n_nodes(gf); ++i) {
        const ggml_tensor * node   = ggml_graph_node(gf, i);
        const auto          before = sources.find(node);
        for (int j = 0; before != sources.end() && j < GGML_MAX_SRC; ++j) {
            const ggml_tensor * to   = node->src[j];
            const ggml_tensor * from = before->second[j];
            if (to == from || to == nullptr || from == nullptr || !copies.insert(to).second) {
                continue;
            }
            const auto size = (int64_t) ggml_nbytes(from);
            if (is_on_host(from) && !is_on_host(to)) {
                ++found.n_to_device;
                found.bytes_to_device += size;
            } else if (!is_on_host(from) && is_on_host(to)) {
                ++found.n_to_host;
                found.bytes_to_host += size;
                found.n_waits += is_busy; // the host computes with it
                is_busy = false;
            } else if (!is_on_host(from)) {
                ++found.n_between;
                found.bytes_between += size;
            }
        }
        is_busy = is_busy || !is_on_host(node);
    }
    found.n_waits += is_busy; // for the end
    return found;
}

void specee_read(ggml_backend_sched_t sched, ggml_tensor * tensor, void * to, size_t offset, size_t size,
                 specee_transfers & transfers) {
    if (is_on_host(tensor)) {
        ggml_backend_tensor_get(tensor, to, offset, size);
        return;
    }
    ggml_backend_tensor_get_async(ggml_backend_sched_get_tensor_backend(sched, tensor), tensor, to, offset, size);
    ++transfers.n_to_host;
    transfers.bytes_to_host += (int64_t) size;
}

// ---- what the host reads of a graph ---------------------------------------------------------------------------------

template <typename F> static void for_results(specee_range_graph & graph, F && f) {
    for (specee_result * result : { &graph.out, &graph.lens, &graph.scores, &graph.selected }) {
        if (result->tensor != nullptr) {
            f(*result);
        }
    }
    for (specee_result & result : graph.kept) {
        if (result.tensor != nullptr) {
            f(result);
        }
    }
}

void specee_rows::make_room(specee_range_graph & graph) {
    const int32_t n = graph.range.n_rows;
    // none of what stays on a device, but the last row's estimate for a probe
    graph.out.first    = graph.out_at != nullptr ? n : 0;
    graph.lens.first   = graph.out_at == nullptr ? 0 : wants_estimate ? n - 1 : n;
    graph.scores.first = n - 1;
    for_results(graph, [](specee_result & result) { result.make_room(); });
    if (graph.range.logits) {
        const ggml_tensor * t = graph.result->get_logits();
        // what chose the last tokens tells whether whole rows are needed with the wait for this computation
        const bool stays = graph.selected.tensor != nullptr && !wants_whole_rows;
        logits_host.resize(stays || ggml_backend_buffer_is_host(t->buffer) ? 0 : ggml_nelements(t));
        wants_whole_rows = false;
    }
}

void specee_rows::read_results(specee_range_graph & graph) {
    const auto read = [&](ggml_tensor * t, float * to, size_t first) {
        specee_read(graph.sched.get(), t, to, first * t->nb[1], (t->ne[1] - first) * t->nb[1], transfers);
    };
    for_results(graph, [&](specee_result & result) {
        if (!result.copy.empty()) {
            read(result.tensor, result.copy.data(), result.first);
        }
    });
    if (graph.range.logits && !logits_host.empty()) {
        read(graph.result->get_logits(), logits_host.data(), 0);
    }
    specee_add(transfers, graph.transfers);
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_rows_transfers(const specee_rows * rows, specee_transfers * transfers) {
    return specee_entry(rows, [&] {
        if (!specee_given(transfers)) {
            return (int32_t) SPECEE_INVALID;
        }
        *transfers = rows->transfers;
        return (int32_t) SPECEE_OK;
    });
}
