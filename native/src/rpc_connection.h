#pragma once

// The connection between a program and a worker (patches/0009). A machine that falls asleep, is switched off or loses
// its network says nothing, and the other one would wait for it without end: a program for an answer, a worker for a
// program that is gone, while no other one can use it.

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#endif

namespace specee {

// The system gives a connection up after so many seconds without a sign of the other machine. One that computes for
// long is not silent, its system answers; but so long it may also leave what was sent in its buffers (Linux counts
// that, too), and a slow machine may compute for a minute on a part of a prompt.
constexpr int SILENT_S = 120;
constexpr int ASK_S    = 15; // it asks after so many without data, and then as often

// Has the system ask whether the other machine is still there. What a system does not have is left out.
template <typename Socket> void notice_loss(Socket connection) {
    const auto set = [connection](int level, int name, int value) {
        (void) setsockopt(connection, level, name, reinterpret_cast<const char *>(&value), sizeof(value));
    };
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
#if defined(TCP_KEEPIDLE)
    set(IPPROTO_TCP, TCP_KEEPIDLE, ASK_S);
#elif defined(TCP_KEEPALIVE) // macOS
    set(IPPROTO_TCP, TCP_KEEPALIVE, ASK_S);
#endif
#if defined(TCP_KEEPINTVL) && defined(TCP_KEEPCNT)
    set(IPPROTO_TCP, TCP_KEEPINTVL, ASK_S);
    set(IPPROTO_TCP, TCP_KEEPCNT, SILENT_S / ASK_S - 1);
#endif
#if defined(TCP_USER_TIMEOUT) // Linux: nothing is asked while data is on the way
    set(IPPROTO_TCP, TCP_USER_TIMEOUT, SILENT_S * 1000);
#endif
}

} // namespace specee
