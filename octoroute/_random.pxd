"""A generator that begins with entropy of the system, and that no two processes have in the same state.

Inline C for `_select.pyx`. A process that was forked counts that, so a generator that was not given a seed
knows that it is a copy: else siblings would repeat each other's draws.
"""

from libc.stdint cimport uint64_t

from octoroute._xoshiro cimport splitmix

cdef extern from *:
    """
    #include <pthread.h>
    #include <unistd.h>

    static unsigned long octo_forks;
    static void octo_count_fork(void) { octo_forks++; }
    #define octo_watch_forks() pthread_atfork(NULL, NULL, octo_count_fork)
    """
    unsigned long forks "octo_forks"
    int watch_forks "octo_watch_forks"() noexcept
    int getentropy(void *buffer, size_t length) noexcept


cdef struct Random:
    uint64_t state[4]                # of xoshiro
    unsigned long forks              # of this process and those before it, when it was seeded
    bint repeats                     # it was given a seed, and goes on in a forked process


cdef inline void seed_with(Random *random, uint64_t seed) noexcept:
    cdef int i
    random.repeats = True
    for i in range(4):
        random.state[i] = splitmix(&seed)


cdef inline int seed_anew(Random *random) except -1:
    """From the system. Raises OSError where it has no entropy to give."""
    random.repeats = False
    random.forks = forks
    if getentropy(random.state, sizeof(random.state)) != 0:
        raise OSError("the system gives no random bytes")
    random.state[0] |= 1             # the all-zero state is the one that never leaves itself
    return 0


cdef inline bint is_copy(const Random *random) noexcept:
    return random.forks != forks and not random.repeats
