"""Leaves one event out of a stream: the token counts that the gateway asked for and the client did not.

Takes the payload of an event stream in pieces of any size and gives back whole events as they came, but for
those that hold a usage and no choice. Names are looked for in the bytes: inside a JSON string a quote is
escaped, so `"usage":` can only be a key.
"""

from libc.string cimport memcmp

from octoroute._sse cimport event_end

cdef Py_ssize_t MAX_KEPT = 65536           # an event that is larger is none of those, and flows as it comes

cdef bytes USAGE = b'"usage"'
cdef bytes CHOICES = b'"choices"'


cdef Py_ssize_t skip_space(const unsigned char* p, Py_ssize_t i, Py_ssize_t n) noexcept:
    while i < n and (p[i] == 32 or p[i] == 10 or p[i] == 13 or p[i] == 9):
        i += 1
    return i


cdef bint has_member(
    const unsigned char* p, Py_ssize_t n, bytes name, unsigned char first, unsigned char second
) noexcept:
    """Whether a member of that name has a value that begins with `first` and then, unless 0, `second`."""
    cdef Py_ssize_t length = len(name), i = 0, at
    cdef const unsigned char* wanted = name
    while i + length < n:
        if p[i] != 34 or memcmp(p + i, wanted, length) != 0:
            i += 1
            continue
        i += length
        at = skip_space(p, i, n)
        if at < n and p[at] == 58:
            at = skip_space(p, at + 1, n)
            if at < n and p[at] == first:
                if not second:
                    return True
                at = skip_space(p, at + 1, n)
                if at < n and p[at] == second:
                    return True
    return False


cdef class UsageFilter:
    """One per answer. `kept_bytes` of an incomplete event wait for their rest."""

    def __cinit__(self):
        self.kept = []

    cdef bytes advance(self, list pieces, bint done):
        """What may go out now that `pieces` came; `done`: they were the last."""
        cdef Py_ssize_t at = 0, end, copied = 0, n
        cdef list shown
        self.kept.extend(pieces)
        cdef bytes data = b"".join(self.kept)
        cdef const unsigned char* p = data
        n = len(data)
        self.kept.clear()
        self.kept_bytes = 0
        shown = []
        while at < n:
            end = event_end(p, at, n)
            if end < 0 and done:
                end = n
            if end < 0:
                break
            if not self.inside and has_member(p + at, end - at, USAGE, 123, 0) and has_member(
                p + at, end - at, CHOICES, 91, 93
            ):
                shown.append(data[copied:at])
                copied = end
            self.inside = False
            at = end
        if n - at > MAX_KEPT or self.inside:
            self.inside = True
            at = n
        shown.append(data[copied:at])
        if at < n:
            self.kept.append(data[at:])
            self.kept_bytes = n - at
        return b"".join(shown)

    def feed(self, list pieces, bint done=False):
        """`advance` for callers in Python."""
        return self.advance(pieces, done)
