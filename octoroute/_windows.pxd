"""A moving window: what was used in each of the last 61 seconds, their sum, what is owed beyond the limit.

Inline C for `_limits.pyx` alone. Plain data without pointers, in memory that several processes see: whoever
calls holds the mutex of the slot that the window is in.

The mechanism is the moving window of E. P. Rathgeb, "Modeling and Performance Comparison of Policing
Mechanisms for ATM Networks", IEEE JSAC 9 (3), 1991, with time in whole seconds: 61 of them cover any 60
seconds, wherever those begin. So no 60 seconds ever see more than the limit admitted, and what was used is
free after at most 61.
"""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <stdint.h>
    #define OCTO_SECONDS 61
    typedef struct { int64_t head, sum, debt, used[OCTO_SECONDS]; } octo_window;
    """
    enum: SECONDS "OCTO_SECONDS"
    ctypedef struct Window "octo_window":
        int64_t head             # the newest second; used[second % SECONDS] is what that second has
        int64_t sum              # of `used`
        int64_t debt             # used beyond the limit: paid from what becomes free, before anything else
        int64_t *used


cdef inline void pay(Window *window, int64_t limit) noexcept:
    """What is owed goes into the newest second, as far as there is room."""
    cdef int64_t paid = min(window.debt, limit - window.sum)
    if paid > 0:
        window.used[window.head % SECONDS] += paid
        window.sum += paid
        window.debt -= paid


cdef inline void advance(Window *window, int64_t second, int64_t limit) noexcept:
    """Let go of what is older than the window at `second`. It never goes back: clocks are read apart."""
    cdef int64_t turns, at
    while window.head < second:
        if second - window.head >= SECONDS:
            if window.debt == 0:
                for at in range(SECONDS):
                    window.used[at] = 0
                window.sum = 0
                window.head = second
                return
            # As long as all that becomes free is owed, each turn of the window looks as the one before.
            if window.sum == limit and window.debt >= limit:
                turns = min((second - window.head) // SECONDS, window.debt // limit)
                window.debt -= turns * limit
                window.head += turns * SECONDS
                continue
        window.head += 1
        at = window.head % SECONDS
        window.sum -= window.used[at]
        window.used[at] = 0
        pay(window, limit)


cdef inline bint take(Window *window, int64_t amount, int64_t limit) noexcept:
    """Use `amount` in the newest second, where the limit and what is owed leave room for all of it."""
    if window.debt > 0 or amount > limit - window.sum:
        return False
    window.used[window.head % SECONDS] += amount
    window.sum += amount
    return True


cdef inline void correct(
    Window *window, int64_t second, int64_t reserved, int64_t used, int64_t limit
) noexcept:
    """Replace what was taken in `second`. Less is given back to that second; more counts from now on."""
    cdef int64_t back
    if used > reserved:
        window.debt += used - reserved
    elif window.head - second < SECONDS:
        back = min(reserved - used, window.used[second % SECONDS])
        window.used[second % SECONDS] -= back
        window.sum -= back
    pay(window, limit)


cdef inline int64_t free_in(Window *window, int64_t amount, int64_t limit) noexcept:
    """Seconds from `head` until there is room for `amount`, if nobody takes more; -1 = never."""
    cdef int64_t needed = window.debt + amount - (limit - window.sum), turns = 0, at = 0
    if amount > limit:
        return -1
    if needed > window.sum:
        turns = 1 + (needed - window.sum - 1) // limit
        needed -= window.sum + (turns - 1) * limit
    while needed > 0 and at < SECONDS:
        at += 1
        needed -= window.used[(window.head + at) % SECONDS]
    return turns * SECONDS + at


cdef inline void recount(Window *window) noexcept:
    """After a death in the middle of a change: the seconds are the truth, the sum follows."""
    cdef int64_t at
    window.sum = 0
    for at in range(SECONDS):
        window.sum += window.used[at]
