"""Event streams as bytes: where events end, and what of one stream was delivered.

Looks at bytes only where that is cheap: no event is taken apart here. Ends of events: WHATWG HTML, section
9.2.
"""

cdef extern from "string.h" nogil:
    void* memmem(const void* text, size_t length, const void* word, size_t word_length)


cdef class Delivered:
    """The writes of one stream to its client, as they were, until somebody `take`s them."""

    def __cinit__(self):
        self.pieces = []

    cdef void add(self, bytes data):
        self.pieces.append(data)
        self.size += len(data)

    def take(self):
        """Everything that was added since the last call."""
        cdef bytes taken = b"".join(self.pieces)
        self.pieces.clear()
        self.size = 0
        return taken


cdef bint names_error(bytes data):
    """Whether it has a member that is called `error`. Inside a JSON string a quote is escaped, so no text of
    a model looks like that.
    """
    cdef const unsigned char* p = data
    return memmem(p, len(data), <const unsigned char*> b'"error"', 7) != NULL


cpdef Py_ssize_t last_event_end(bytes payload):
    """The offset behind the last empty line (LF LF, CR LF CR LF, CR CR), 0 if there is none."""
    cdef const unsigned char* p = payload
    cdef Py_ssize_t i = len(payload)
    while i >= 2:
        if p[i - 1] == 10:
            if p[i - 2] == 10 or (i >= 4 and p[i - 2] == 13 and p[i - 3] == 10 and p[i - 4] == 13):
                return i
        elif p[i - 1] == 13 and p[i - 2] == 13:
            return i
        i -= 1
    return 0
