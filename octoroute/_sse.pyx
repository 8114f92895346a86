"""Event streams as bytes: where events end, and whether one may be an error.

Looks at bytes only where that is cheap: no event is taken apart here. Ends of events: WHATWG HTML, section
9.2. A CR ends its line at once; an LF that comes behind it, perhaps later, belongs to it.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.string cimport memcmp

cdef extern from "string.h" nogil:
    void* memmem(const void* text, size_t length, const void* word, size_t word_length)


cdef Py_ssize_t event_end(const unsigned char* p, Py_ssize_t at, Py_ssize_t n) noexcept:
    """Offset behind the first empty line (LF LF, LF CR LF, CR CR, CR CR LF) at or after `at`, -1: there is
    none.
    """
    cdef Py_ssize_t i
    for i in range(at + 1, n):
        if p[i] == 10:
            if p[i - 1] == 10 or (p[i - 1] == 13 and i - 2 >= at and p[i - 2] == 10):
                return i + 1
        elif p[i] == 13 and p[i - 1] == 13:
            return i + 2 if i + 1 < n and p[i + 1] == 10 else i + 1
    return -1


cpdef bytes first_data_event(bytes payload):
    """The first event with a `data` line, without the empty line behind it; None while none is complete."""
    cdef const unsigned char* p = payload
    cdef Py_ssize_t n = len(payload), at = 0, end
    while True:
        end = event_end(p, at, n)
        if end < 0:
            return None
        if (
            (end - at > 4 and memcmp(p + at, b"data", 4) == 0)
            or memmem(p + at, end - at, b"\ndata", 5) != NULL
            or memmem(p + at, end - at, b"\rdata", 5) != NULL
        ):
            return payload[at:end].rstrip(b"\r\n")
        at = end


cpdef bint names(bytes data, bytes member) except -1:
    """Whether it has a member that is called so (with its quotes). Inside a JSON string a quote is escaped,
    so no text of a model looks like that.
    """
    return memmem(PyBytes_AS_STRING(data), len(data), PyBytes_AS_STRING(member), len(member)) != NULL


cpdef Py_ssize_t last_event_end(bytes payload):
    """The offset behind the last empty line (as for `event_end`), 0 if there is none."""
    cdef const unsigned char* p = payload
    cdef Py_ssize_t i = len(payload)
    while i >= 2:
        if p[i - 1] == 10:
            if p[i - 2] == 10 or (i >= 3 and p[i - 2] == 13 and (p[i - 3] == 10 or p[i - 3] == 13)):
                return i
        elif p[i - 1] == 13 and p[i - 2] == 13:
            return i
        i -= 1
    return 0
