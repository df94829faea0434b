#include "threads.h"

#include "error.h"
#include "rows.h"

#include <algorithm>
#include <chrono>
#include <cmath>

// ---- the rule ------------------------------------------------------------------------------------------------------

// In cores. Times are known with an error of about 0.1. A neighbour that always wants to run gets half of the core of a
// thread that does so too.
static constexpr double SLACK_FEWER = 0.3;
static constexpr double SLACK_MORE  = 0.2;
// In seconds. One more thread is tried now and then even if its core seems taken: processes of low priority yield.
static constexpr double HOLD_MIN = 2.0;
static constexpr double HOLD_MAX = 16.0;
// A pause of so many seconds, in which this process used little of a core, says nothing: who was busy may have ended.
static constexpr double PAUSE      = 0.3;
static constexpr double PAUSE_LOAD = 0.25;

specee_thread_rule::specee_thread_rule(int32_t n_cores, int32_t n_threads) :
    n_cores(n_cores), n_max(std::clamp(n_threads, 1, n_cores)), n(n_max), hold(HOLD_MIN), since_change(HOLD_MIN) {}

int32_t specee_thread_rule::decide(double seconds, double idle, double own) {
    if (seconds > PAUSE && own < PAUSE_LOAD * seconds) {
        return n;
    }
    const double  others = std::clamp(n_cores - (idle + own) / seconds, 0.0, (double) n_cores);
    const int32_t most   = std::clamp((int32_t) std::floor(n_cores - others + SLACK_FEWER), 1, n_max);
    const int32_t least  = std::clamp((int32_t) std::floor(n_cores - others + SLACK_MORE), 1, n_max);
    since_change += seconds;
    if (n > most) {
        hold         = since_change < hold ? std::min(2 * hold, HOLD_MAX) : HOLD_MIN;
        n            = most;
        since_change = 0;
    } else if (n < least) {
        n            = least;
        since_change = 0;
    } else if (n < n_max && since_change >= hold) {
        n += 1;
        since_change = 0;
    }
    return n;
}

// ---- this system ---------------------------------------------------------------------------------------------------

static constexpr double PERIOD = 0.1;   // seconds between samples, at least
static constexpr double SHARE  = 0.001; // of the time that samples may take, at most
// A pass is begun again in its first seconds only: later, more would be lost than won. The clock is read once in a
// number of questions, of which a token asks several hundred.
static constexpr double  STOP_TIME        = 0.5;
static constexpr int32_t ASKED_PER_SAMPLE = 16;

static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

specee_threads::specee_threads(int32_t n_threads) :
    rule(specee_core_count() > 0 ? specee_core_count() : n_threads, n_threads),
    can_sample(rule.n_max > 1 && specee_core_times_now(last)) {
    next_sample = now() + PERIOD;
}

int32_t specee_threads::begin(int32_t n_rows, bool may_stop) {
    stopped    = false;
    stop_until = 0;
    if (n_fixed == 0 && can_sample) {
        const double begun = now();
        if (begun >= next_sample) {
            sample_load();
        }
        if (may_stop && rule.n > 1) {
            stop_until = begun + STOP_TIME;
        }
    }
    if (may_stop && stops_next) {
        stop_until = HUGE_VAL;
    }
    return n_rows == 1 && n_fixed == 0 ? std::min(current(), n_single) : current();
}

bool specee_threads::stop() {
    if (stopped || stop_until == 0 || ++n_asked % ASKED_PER_SAMPLE != 0) {
        return stopped;
    }
    const double asked = now();
    if (stops_next) {
        stopped    = true;
        stops_next = false;
    } else if (asked >= next_sample && asked < stop_until) {
        const int32_t before = rule.n;
        sample_load();
        stopped = rule.n < before;
    }
    n_stopped += stopped;
    return stopped;
}

void specee_threads::fix(int32_t n) {
    n_fixed = n;
}

int32_t specee_threads::stop_next() {
    stops_next = true;
    return n_stopped;
}

void specee_threads::sample_load() {
    const double      begin = now();
    specee_core_times seen;
    can_sample           = specee_core_times_now(seen);
    const double seconds = seen.clock - last.clock;
    if (can_sample && seconds > 0) {
        rule.decide(seconds, seen.idle - last.idle, seen.own - last.own);
        last = seen;
    }
    const double end = now();
    sample_cost      = std::min(sample_cost, end - begin); // the least: this thread may lose its core meanwhile
    next_sample      = end + std::max(PERIOD, sample_cost / SHARE);
}

void specee_rows::take_threads(int32_t n, bool may_stop) {
    ctx.cparams.n_threads = ctx.cparams.n_threads_batch = threads.begin(n, may_stop);
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_rows_threads(specee_rows * rows) {
    return specee_entry(rows, [&] { return rows->threads.current(); });
}

void specee_rows_fix_threads(specee_rows * rows, int32_t n) {
    specee_entry(rows, [&] {
        rows->threads.fix(std::clamp(n, 0, GGML_MAX_N_THREADS));
        return (int32_t) SPECEE_OK;
    });
}

void specee_rows_limit_single_row(specee_rows * rows, int32_t n) {
    specee_entry(rows, [&] {
        rows->threads.limit_single_row(std::max(n, 1));
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_rows_stop_next(specee_rows * rows) {
    return specee_entry(rows, [&] { return rows->threads.stop_next(); });
}

specee_thread_rule * specee_thread_rule_init(int32_t n_cores, int32_t n_threads) {
    return specee_guard((specee_thread_rule *) nullptr, [&] { return new specee_thread_rule(n_cores, n_threads); });
}

int32_t specee_thread_rule_decide(specee_thread_rule * rule, double seconds, double idle, double own) {
    return specee_entry(rule, [&] { return rule->decide(seconds, idle, own); });
}

void specee_thread_rule_free(specee_thread_rule * rule) {
    delete rule;
}
