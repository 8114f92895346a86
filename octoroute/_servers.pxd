"""The model servers of the shared table: what all endpoints with one base URL have in common.

A row is a server's for as long as a slot is in its chain. Its mutex guards the slots in the chain too.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from octoroute._robust cimport init_mutex, pthread_mutex_t

cdef extern from *:
    """
    typedef struct {
        pthread_mutex_t mutex;
        unsigned char digest[16];
        uint32_t in_flight, most;
        int32_t first;
        uint8_t used;
    } __attribute__((aligned(64))) octo_server;
    """
    ctypedef struct Server "octo_server":
        pthread_mutex_t mutex
        uint8_t digest[16]
        uint32_t in_flight           # at all its endpoints
        uint32_t most                # of them at a time; 0 = any number
        int32_t first                # of the chain of its slots: a slot's number + 1, 0 is none
        uint8_t used


cdef inline int32_t find_server(Server *rows, int32_t count, const uint8_t *digest, int32_t at) noexcept:
    """The row of a server, looked for from `at` on, else a free one, made its own. The table is locked.

    There is one, if there are as many rows as slots and the slot that it is for is in no chain.
    """
    cdef int32_t found = -1
    for _ in range(count):
        if rows[at].used and memcmp(rows[at].digest, digest, 16) == 0:
            return at
        if found < 0 and rows[at].first == 0:
            found = at
        if not rows[at].used:
            break
        at = (at + 1) % count
    if not rows[found].used:
        init_mutex(&rows[found].mutex)
    memcpy(rows[found].digest, digest, 16)
    rows[found].in_flight = rows[found].most = 0
    rows[found].used = 1
    return found
