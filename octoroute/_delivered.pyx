"""What of one stream was delivered to its client, until somebody takes it over.

Bytes as they were written; but where event after event is the same but for the text of its one string (and
the second it was made in), that text alone. What those events are is learnt once, by somebody who can read
JSON; here bytes are compared.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from octoroute._framing cimport chunk_begin

cdef Py_ssize_t MAX_BYTES = 8192           # kept as they were written; more had better be read
cdef int MAX_DIGITS = 18


cdef class Pattern:
    """Events that are like `event` (all of its bytes) but for the string behind the member `name`, and for
    the number behind `created`, where it has one. Raises ValueError where it has not exactly one such string.
    """

    def __init__(self, bytes event, bytes name):
        cdef Py_ssize_t begin = value_behind(event, name), end
        cdef Py_ssize_t number = value_behind(event, b"created"), number_end
        if begin < 0 or event[begin:begin + 1] != b'"':
            raise ValueError(f"no string {name!r} in the event")
        begin += 1
        end = string_end(event, begin, len(event))
        if end < 0:
            raise ValueError(f"the string {name!r} is not complete")
        self.name = name
        self.text = event[begin:end]
        number_end = number
        while 0 <= number_end < len(event) and 48 <= event[number_end] <= 57:
            number_end += 1
        self.has_number = 0 <= number < number_end
        self.text_first = not self.has_number or begin < number
        if not self.has_number:
            self.first, self.middle, self.last = event[:begin], event[end:], b""
        elif self.text_first:
            self.first, self.middle, self.last = event[:begin], event[end:number], event[number_end:]
        else:
            self.first, self.middle, self.last = event[:number], event[number_end:begin], event[end:]

    cdef Py_ssize_t end_of(
        self, const unsigned char* p, Py_ssize_t at, Py_ssize_t n, Py_ssize_t* begin, Py_ssize_t* end
    ) except -2:
        """Offset behind the event of this kind at `at`, its text from `begin` to `end`; -1: it is another."""
        at = behind(p, at, n, self.first)
        if self.text_first:
            begin[0] = at
            at = end[0] = string_end(p, at, n)
            at = behind(p, at, n, self.middle)
            if self.has_number:
                at = behind(p, number_end(p, at, n), n, self.last)
            return at
        at = behind(p, number_end(p, at, n), n, self.middle)
        begin[0] = at
        at = end[0] = string_end(p, at, n)
        return behind(p, at, n, self.last)


cdef Py_ssize_t value_behind(bytes event, bytes name) except -2:
    """Offset of the value of the one member of that name, -1: there is none, or more than one.

    Inside a JSON string a quote is escaped, so that a name in quotes and a colon can only be a member's.
    """
    cdef bytes key = b'"%b":' % name
    cdef Py_ssize_t at = event.find(key)
    if at < 0 or event.find(key, at + 1) >= 0:
        return -1
    at += len(key)
    while at < len(event) and event[at] == 32:
        at += 1
    return at


cdef Py_ssize_t string_end(const unsigned char* p, Py_ssize_t at, Py_ssize_t n) noexcept:
    """Offset of the quote that ends the string whose text begins at `at`, -1: there is none."""
    if at < 0:
        return -1
    while at < n and p[at] != 34:
        if p[at] < 32:
            return -1
        at += 2 if p[at] == 92 else 1
    return at if at < n else -1


cdef Py_ssize_t number_end(const unsigned char* p, Py_ssize_t at, Py_ssize_t n) noexcept:
    cdef Py_ssize_t begin = at
    if at < 0:
        return -1
    while at < n and 48 <= p[at] <= 57:
        at += 1
    return at if 0 < at - begin <= MAX_DIGITS else -1


cdef Py_ssize_t behind(const unsigned char* p, Py_ssize_t at, Py_ssize_t n, bytes what) except -2:
    """Offset behind `what`, -1: it does not stand at `at`."""
    cdef Py_ssize_t length = len(what)
    if at < 0 or n - at < length or memcmp(p + at, PyBytes_AS_STRING(what), length) != 0:
        return -1
    return at + length


cdef class Delivered:
    """`add` what was written; `take` it over when there is `much`: more than `max_text` bytes of the text of
    events that were alike, or more than is good of what is kept as it was written.
    """

    def __init__(self, Py_ssize_t max_text):
        self.items = []
        self.max_text = max_text

    def __dealloc__(self):
        free(self.run)

    cdef bint add_alike(self, bytes data, bint framed) except -1:
        """Takes a write that begins where an event does, if it is all events of the pattern."""
        cdef const unsigned char* p = data
        cdef Py_ssize_t n = len(data), at = 0, to = n, before = self.run_bytes, begin = 0, end = 0
        cdef Py_ssize_t pieces = 0
        cdef Pattern pattern = self.pattern
        if pattern is None:
            return False
        while at < n:
            if framed:
                begin = chunk_begin(p + at, n - at, &to)
                if not begin or to > n - at - begin:
                    at = -1
                    break
                at += begin
                to += at
            while 0 <= at < to:
                at = pattern.end_of(p, at, to, &begin, &end)
                if at > 0 and end > begin:
                    self.put(p + begin, end - begin)
                    pieces += 1
            if framed and at > 0:
                at = behind(p, at, n, b"\r\n")
            if at < 0:
                break
        if at != n:
            self.run_bytes = before
            return False
        self.run_pieces += pieces
        return True

    cdef int put(self, const unsigned char* text, Py_ssize_t n) except -1:
        cdef char* larger
        if self.run_bytes + n > self.run_size:
            larger = <char*> realloc(self.run, 2 * (self.run_bytes + n))
            if larger == NULL:
                raise MemoryError
            self.run = larger
            self.run_size = 2 * (self.run_bytes + n)
        memcpy(self.run + self.run_bytes, text, n)
        self.run_bytes += n
        return 0

    cdef void end_run(self):
        if self.run_pieces:
            text = PyBytes_FromStringAndSize(self.run, self.run_bytes)
            self.items.append((self.pattern.name, text, self.run_pieces))
            self.text_bytes += self.run_bytes
            self.run_bytes = self.run_pieces = 0

    cdef void add(self, bytes data):
        self.end_run()
        self.items.append(data)
        self.size += len(data)

    cdef bint much(self) noexcept:
        return self.size > MAX_BYTES or self.text_bytes + self.run_bytes > self.max_text

    def expect(self, Pattern pattern):
        """Of writes that begin where an event does, keep the text of events like these. What is kept as it
        was written is counted anew.
        """
        self.end_run()
        self.pattern = pattern
        self.size = 0

    @property
    def expects(self):
        """Whether it has been told what events are like."""
        return self.pattern is not None

    @property
    def latest(self):
        """The last write, if it is kept as it was written; else nothing."""
        cdef object last = self.items[len(self.items) - 1] if self.items and not self.run_pieces else b""
        return last if type(last) is bytes else b""

    def take(self):
        """What was added since the last call, in its order: bytes, and of events that were alike (name of the
        member, its text as JSON writes it between quotes, how many had any).
        """
        self.end_run()
        taken, self.items = self.items, []
        self.size = self.text_bytes = 0
        return taken
