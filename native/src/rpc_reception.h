#pragma once

// A worker serves one program at a time (patches/0009). While it does, a thread of its own greets whoever else
// connects: a program that only asks whether the worker is there is told so, however long it computes; one that wants
// to be served waits for its turn.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <thread>
#include <utility>

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <winsock2.h>
#else
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#endif

namespace specee {

// A byte of the worker's greeting that llama.cpp leaves at 0: it can be asked at any time; it serves another program.
constexpr uint8_t GREETS = 1;
constexpr uint8_t BUSY   = 2;
// What the greeting of a program that only asks begins with, where llama.cpp has what its network cards can (at 0).
constexpr char ASKS[] = "is it there?";

constexpr int    TURN_MS     = 20;   // so long the thread waits for a connection before it looks whether it is to end
constexpr int    GREETING_MS = 2000; // who connects and does not greet keeps others waiting no longer
constexpr size_t N_WAITING   = 8;    // programs at most

inline bool asks(const uint8_t * caps) {
    return std::memcmp(caps, ASKS, sizeof(ASKS)) == 0;
}

// Whether somebody connects within TURN_MS.
template <typename Socket> bool is_wanted(Socket listening) {
#ifdef _WIN32
    WSAPOLLFD asked{ listening, POLLRDNORM, 0 };
    return WSAPoll(&asked, 1, TURN_MS) > 0;
#else
    pollfd asked{ listening, POLLIN, 0 };
    return poll(&asked, 1, TURN_MS) > 0;
#endif
}

// What is not read or sent within so many milliseconds fails; 0: there is no limit.
template <typename Socket> void limit_waiting(Socket connection, int ms) {
#ifdef _WIN32
    const DWORD limit = static_cast<DWORD>(ms);
#else
    const timeval limit{ ms / 1000, 0 };
#endif
    for (const int way : { SO_RCVTIMEO, SO_SNDTIMEO }) {
        (void) setsockopt(connection, SOL_SOCKET, way, reinterpret_cast<const char *>(&limit), sizeof(limit));
    }
}

// Whether so many bytes, 64 at most, come within GREETING_MS altogether: who sends one now and then is not waited for
// either. They stay to be read.
template <typename Socket> bool has_come(Socket connection, size_t n) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(GREETING_MS);
    limit_waiting(connection, GREETING_MS);
    char bytes[64];
    bool comes = true;
    while (comes && std::chrono::steady_clock::now() < until) {
        const auto found = recv(connection, bytes, static_cast<int>(n), MSG_PEEK);
        if (found >= static_cast<decltype(found)>(n)) {
            limit_waiting(connection, 0);
            return true;
        }
        comes = found > 0;
        std::this_thread::sleep_for(std::chrono::milliseconds(comes ? 1 : 0));
    }
    return false;
}

// Between `open` and `close`, `greet` is called again and again in a thread: it waits for a connection for TURN_MS, and
// returns one that is to be served later, or none.
template <typename Connection> class Reception {
  public:
    explicit Reception(std::function<Connection()> greet) : m_greet(std::move(greet)) {}
    Reception(const Reception &)             = delete;
    Reception & operator=(const Reception &) = delete;
    ~Reception() { close(); }

    void open() {
        m_ends   = false;
        m_thread = std::thread([this] {
            while (!m_ends) {
                if (Connection found = m_greet(); found && m_waiting.size() < N_WAITING) {
                    m_waiting.push_back(std::move(found));
                }
            }
        });
    }

    void close() {
        m_ends = true;
        if (m_thread.joinable()) {
            m_thread.join();
        }
    }

    // While it is closed: who has waited the longest, if anybody.
    Connection next() {
        if (m_waiting.empty()) {
            return {};
        }
        Connection first = std::move(m_waiting.front());
        m_waiting.pop_front();
        return first;
    }

  private:
    std::function<Connection()> m_greet;
    std::atomic<bool>           m_ends{ false };
    std::deque<Connection>      m_waiting; // the thread's while it runs
    std::thread                 m_thread;
};

} // namespace specee
