"""The coarse clock of all exchanges: one look at each of them, ten times a second, in place of timers."""

from octoroute._relay cimport HEAD, HOLD, PASS, RECODE, Relay

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *where) nogil

cdef enum:
    AHEAD = 8                # exchanges whose memory is on its way while one is looked at
    LINE = 64                # bytes of a line of the cache; what is looked at lies in two

cdef long long PARTIAL_NS = 100_000_000    # how long an incomplete event may wait for its rest
cdef long long AGAIN_NS = 500_000_000      # between two on_silence() of one silence


def sweep(relays, long long now):
    """Looks at every exchange under way: deadlines, silence, events that stay incomplete."""
    cdef Relay relay
    cdef list looked_at = list(relays)
    cdef Py_ssize_t i, n = len(looked_at)
    cdef const char *next_one
    for i in range(n):
        if i + AHEAD < n:
            next_one = <const char*> <void*> looked_at[i + AHEAD]
            prefetch(next_one)
            prefetch(next_one + LINE)
        relay = looked_at[i]
        if relay.phase == PASS or relay.phase == RECODE:
            if relay.held_bytes and relay.delivered is None and now - relay.last_ns > PARTIAL_NS:
                relay.flush(False)
            if now - (relay.out_ns if relay.writing_paused else relay.last_ns) > relay.idle_ns:
                relay.on_overdue()
                continue
            if relay.writing_paused:
                relay.last_ns = now            # while nobody reads, the server can't be silent
        elif relay.phase == HEAD or relay.phase == HOLD:
            if now > relay.deadline_ns:
                relay.on_overdue()
                continue
        else:
            continue
        if relay.watch_ns and now - relay.last_ns > relay.watch_ns:
            if now - relay.watched_ns > AGAIN_NS:
                relay.watched_ns = now
                relay.on_silence(now - relay.last_ns)
        if relay.ping_ns and now - relay.out_ns > relay.ping_ns:
            relay.on_quiet()


def forgive(relays, long long late_ns):
    """The gateway itself stood still for so long: nobody can be blamed for that time."""
    cdef Relay relay
    for relay in relays:
        relay.deadline_ns += late_ns
        relay.last_ns += late_ns
