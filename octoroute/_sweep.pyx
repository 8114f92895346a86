"""The coarse clock of all exchanges: one look at each of them, ten times a second, in place of timers."""

from octoroute._relay cimport HEAD, HOLD, PASS, RECODE, Relay

cdef long long PARTIAL_NS = 100_000_000    # how long an incomplete event may wait for its rest


def sweep(relays, long long now):
    """Looks at every exchange under way: deadlines, silence, events that stay incomplete."""
    cdef Relay relay
    for relay in list(relays):
        if relay.phase == PASS or relay.phase == RECODE:
            if relay.held_bytes and now - relay.last_ns > PARTIAL_NS:
                relay.flush(False)
            if now - (relay.out_ns if relay.writing_paused else relay.last_ns) > relay.idle_ns:
                relay.on_overdue()
                continue
        elif relay.phase == HEAD or relay.phase == HOLD:
            if now > relay.deadline_ns:
                relay.on_overdue()
                continue
        else:
            continue
        if relay.ping_ns and now - relay.out_ns > relay.ping_ns:
            relay.on_quiet()
