// Rows of several stages at once: each batch in a range of layers of its own, on another device.
#include "rows.h"

#include <algorithm>

int32_t specee_rows::check_stages(int32_t n, const int32_t * counts, const int32_t * ids, const int32_t * ends,
                                  uint32_t flags) {
    if (!specee_given(counts, ids, ends)) {
        return SPECEE_INVALID;
    }
    if (level < SPECEE_LEVEL_RANGES) {
        return fail_level();
    }
    if (n <= 0 || n > n_layer || (flags & ~(uint32_t) SPECEE_LOGITS) != 0) {
        return specee_fail(SPECEE_INVALID, "no such flag, or no such number of stages");
    }
    passes.resize(n);
    for (int32_t i = 0; i < n; ids += counts[i++]) {
        specee_pass &  pass = passes[i] = {};
        const uint32_t logits           = ends[i] == n_layer ? flags : 0;
        const int32_t  checked          = check_pass(pass, counts[i], ids, ends[i], logits);
        if (checked != SPECEE_OK) {
            return checked;
        }
        // one writes K and V where no other one reads or writes
        if (i > 0 && pass.range.end > passes[i - 1].range.begin) {
            return specee_fail(SPECEE_INVALID, "stages must be given from the last layers to the first ones");
        }
        pass.batch  = batch;
        pass.groups = groups;
    }
    return SPECEE_OK;
}

int32_t specee_rows::advance_stages(int32_t n, const int32_t * counts, const int32_t * ids, const int32_t * ends,
                                    uint32_t flags) {
    int32_t status = check_stages(n, counts, ids, ends, flags);
    if (status != SPECEE_OK) {
        return status;
    }
    reserve_again(n_rows_max);
    const auto take = [&](specee_pass & pass) {
        batch  = pass.batch;
        groups = pass.groups;
    };
    specee_scope_guard leave([&] {
        for (specee_pass & pass : passes) {
            if (pass.graph != nullptr && pass.graph->busy) { // its results are not read: that may throw
                ggml_backend_sched_synchronize(pass.graph->sched.get());
                pass.graph->busy = false;
            }
        }
        for (specee_pass & pass : passes) {
            take(pass);
            leave_pass(pass);
        }
    });
    const auto         is_on_cpu = [&](const specee_pass & pass) {
        const int32_t layer = std::min(pass.range.begin, n_layer - 1);
        return ggml_backend_dev_type(model.dev_layer(layer)) == GGML_BACKEND_DEVICE_TYPE_CPU;
    };
    for (const bool on_cpu : { false, true }) { // a CPU computes while it is called: the other devices begin before it
        for (specee_pass & pass : passes) {
            if (is_on_cpu(pass) != on_cpu) {
                continue;
            }
            take(pass);
            status = begin_pass(pass);
            if (status != SPECEE_OK) {
                return status;
            }
        }
    }
    for (specee_pass & pass : passes) {
        status = wait_for(*pass.graph);
        if (status != SPECEE_OK) {
            return status;
        }
    }
    for (specee_pass & pass : passes) {
        if (pass.range.logits) { // before any row is deeper: it may get no memory
            take(pass);
            keep_logits(*pass.graph);
        }
    }
    for (specee_pass & pass : passes) {
        take(pass);
        read_pass(pass);
    }
    return SPECEE_OK;
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_rows_advance_stages(specee_rows * rows, int32_t n, const int32_t * counts, const int32_t * ids,
                                   const int32_t * ends, uint32_t flags) {
    return specee_entry(rows, [&] { return rows->advance_stages(n, counts, ids, ends, flags); });
}
