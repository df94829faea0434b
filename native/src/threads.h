// How many threads compute. They wait for each other hundreds of times a token, so two of them on two cores of which
// another process wants one are several times slower than one alone. So: no more threads than there are cores for them.
#pragma once

#include "cores.h"

#include <cstdint>

// The decision, from what was seen since the last one; reads no clock.
struct specee_thread_rule {
    const int32_t n_cores; // that we may use
    const int32_t n_max;
    int32_t       n; // threads now
    double        hold;
    double        since_change;

    specee_thread_rule(int32_t n_cores, int32_t n_threads);

    // In core seconds: `idle` that nobody used, `own` that this process used. Returns the threads from now on.
    int32_t decide(double seconds, double idle, double own);
};

// The rule with this system's clocks. Where it does not say how busy its cores are, the number stays.
class specee_threads {
  public:
    explicit specee_threads(int32_t n_threads);

    // Threads for the pass of n_rows that begins now. may_stop: it can be begun again with the same result.
    int32_t begin(int32_t n_rows, bool may_stop);
    // Asked often during the pass, by the thread that began it: whether to stop, and begin again with fewer threads.
    bool    stop();
    bool    has_stopped() const { return stopped; } // the pass that was begun last
    int32_t current() const { return n_fixed > 0 ? n_fixed : rule.n; }
    int32_t most() const { return n_fixed > 0 ? n_fixed : rule.n_max; }
    // From now on: this many, or with 0 as the cores allow.
    void fix(int32_t n);
    // A single row, whose time is that of reading memory, takes at most this many.
    void limit_single_row(int32_t n) { n_single = n; }
    // The next pass that may be stopped will be (tests). Returns how many have been, so far.
    int32_t stop_next();

  private:
    specee_thread_rule rule;
    specee_core_times  last;
    double             next_sample = 0;
    double             sample_cost = 1; // seconds
    bool               can_sample;      // the system says how busy its cores are
    int32_t            n_fixed    = 0;
    int32_t            n_single   = INT32_MAX;
    double             stop_until = 0; // 0: not at all
    int32_t            n_asked    = 0;
    bool               stopped    = false;
    bool               stops_next = false;
    int32_t            n_stopped  = 0;

    void sample_load();
};
