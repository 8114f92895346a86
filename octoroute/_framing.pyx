"""Where the body of an HTTP/1.1 answer ends, through reads of any size, and where the events in it do.

Strict like the reader of heads: bytes that are not plainly valid raise Malformed and are never passed on.
Grammar: RFC 9112 sections 6 and 7; ends of events: WHATWG HTML, section 9.2.
"""

from octoroute._http1 cimport EMPTY, LENGTH, TOKEN, UNTIL_CLOSE

from octoroute._http1 import Malformed

cdef Py_ssize_t MAX_EXTENSION_BYTES = 4096    # of one chunk
cdef Py_ssize_t MAX_TRAILER_BYTES = 8192
cdef long long MAX_CHUNK_BYTES = 1 << 32

cdef enum:
    SIZE = 0         # hexadecimal digits of a chunk's size
    SPACE = 1        # behind them
    EXTENSION = 2    # from the semicolon up to CR
    SIZE_LF = 3
    DATA = 4
    DATA_CR = 5
    DATA_LF = 6
    TRAILER = 7      # start of a trailer line, or of the empty line that ends the body
    TRAILER_NAME = 8
    TRAILER_VALUE = 9
    TRAILER_LF = 10
    LAST_LF = 11


cdef Py_ssize_t chunk_begin(const unsigned char* p, Py_ssize_t n, Py_ssize_t* size) noexcept:
    """Where the payload of the chunk at `p` begins, its `size` read; 0 if its line is not complete and plain
    (up to seven digits, no extension), or the chunk is the last.
    """
    cdef Py_ssize_t number = 0, i = 0
    cdef unsigned char c
    while i < n and i < 7:
        c = p[i]
        if 48 <= c <= 57:
            number = number * 16 + c - 48
        elif 97 <= (c | 32) <= 102:
            number = number * 16 + (c | 32) - 87
        else:
            break
        i += 1
    if not number or n - i < 2 or p[i] != 13 or p[i + 1] != 10:
        return 0
    size[0] = number
    return i + 2


cdef class Framing:
    """Follows a body through reads of any size and knows where it ends. One per connection, reset for each
    answer.

    `done`: the body is complete. `at_boundary`: between two chunks (chunked), so that a chunk of our own may
    be put here. `events_cut`: a chunk ended inside an event. `chunks`, `payload_bytes`: seen so far.
    """

    def __init__(self, int kind=EMPTY, long long length=0):
        self.reset(kind, length)

    cdef void reset(self, int kind, long long length) noexcept:
        self.kind = kind
        self.left = length if kind == LENGTH else 0
        self.done = kind == EMPTY
        self.at_boundary = True
        self.events_cut = False
        self.state = SIZE
        self.digits = 0
        self.extra = 0
        self.chunks = 0
        self.payload_bytes = 0
        self.last = self.before_last = self.before_that = 10

    cdef void saw(self, const unsigned char* p, Py_ssize_t n) noexcept:
        """The last three payload bytes tell whether an event of an event stream is complete."""
        self.payload_bytes += n
        self.seen = n
        if n >= 3:
            self.before_that = p[n - 3]
            self.before_last = p[n - 2]
        elif n == 2:
            self.before_that = self.last
            self.before_last = p[0]
        else:
            self.before_that = self.before_last
            self.before_last = self.last
        self.last = p[n - 1]

    cdef bint between_events(self) noexcept:
        """Whether the payload so far ends with an empty line (as in _sse.pyx), or is empty."""
        if self.last == 10:
            return self.before_last == 10 or (
                self.before_last == 13 and (self.before_that == 10 or self.before_that == 13)
            )
        return self.last == 13 and self.before_last == 13

    cdef Py_ssize_t whole_chunk(self, const unsigned char* p, Py_ssize_t n) noexcept:
        """Bytes of the chunk that begins at `p`, its payload seen, if it is complete and plain; else 0, and
        the states below have to tell. Most reads of a stream are one or more of these.
        """
        cdef Py_ssize_t size = 0, i = chunk_begin(p, n, &size)
        if not i or n - i < size + 2 or p[i + size] != 13 or p[i + size + 1] != 10:
            return 0
        self.saw(p + i, size)
        self.chunks += 1
        return i + size + 2

    cdef int behind_size(self, unsigned char c) except -1:
        """What may stand between a chunk's size and the end of that line."""
        self.extra += 1
        if c == 13:
            self.state = SIZE_LF
        elif c == 59:
            self.state = EXTENSION
        elif (c == 32 or c == 9) and self.extra <= MAX_EXTENSION_BYTES:
            self.state = SPACE
        else:
            raise Malformed("a chunk's size is malformed")
        return 0

    cdef int in_trailer(self, bint valid) except -1:
        self.extra += 1
        if not valid or self.extra > MAX_TRAILER_BYTES:
            raise Malformed("a trailer is malformed or too long")
        return 0

    cdef Py_ssize_t advance(
        self, const unsigned char* p, Py_ssize_t n, Py_ssize_t* settled, list payload
    ) except -1:
        """Bytes of `p` that belong to the body: n, or fewer when it ends inside.

        `settled` is set to the offset behind the last place where both a chunk and an event were complete (0:
        none). `payload`, unless None, gets the pieces of the payload appended.
        """
        cdef Py_ssize_t i = 0, step
        cdef unsigned char c
        cdef int digit
        settled[0] = 0
        if self.kind == LENGTH or self.kind == UNTIL_CLOSE:
            step = n
            if self.kind == LENGTH:
                step = n if n < self.left else <Py_ssize_t> self.left
                self.left -= step
                self.done = self.left == 0
            if step:
                self.saw(p, step)
                self.chunks += 1
                if payload is not None:
                    payload.append(p[:step])
            if self.done or self.between_events():
                settled[0] = step
            return step
        while i < n and not self.done:
            if self.state == DATA:
                step = n - i if n - i < self.left else <Py_ssize_t> self.left
                self.saw(p + i, step)
                if payload is not None:
                    payload.append(p[i:i + step])
                self.left -= step
                i += step
                if self.left == 0:
                    self.state = DATA_CR
                continue
            if self.state == SIZE and not self.digits:
                step = self.whole_chunk(p + i, n - i)
                if step:
                    if payload is not None:
                        payload.append(p[i + step - self.seen - 2:i + step - 2])
                    i += step
                    if self.between_events():
                        settled[0] = i
                    else:
                        self.events_cut = True
                    continue
            c = p[i]
            i += 1
            if self.state == SIZE:
                self.at_boundary = False
                if 48 <= c <= 57:
                    digit = c - 48
                elif 97 <= (c | 32) <= 102:
                    digit = (c | 32) - 87
                elif self.digits:
                    self.extra = 0
                    self.behind_size(c)
                    continue
                else:
                    raise Malformed("a chunk's size is malformed")
                self.left = self.left * 16 + digit
                self.digits += 1
                if self.digits > 16 or self.left > MAX_CHUNK_BYTES:
                    raise Malformed("a chunk's size is too large")
            elif self.state == DATA_CR:
                if c != 13:
                    raise Malformed("a chunk is longer than its size says")
                self.state = DATA_LF
            elif self.state == DATA_LF:
                if c != 10:
                    raise Malformed("a chunk is longer than its size says")
                self.state = SIZE
                self.digits = 0
                self.at_boundary = True
                self.chunks += 1
                if self.between_events():
                    settled[0] = i
                else:
                    self.events_cut = True
            elif self.state == SIZE_LF:
                if c != 10:
                    raise Malformed("a chunk's size is malformed")
                self.extra = 0
                self.state = DATA if self.left else TRAILER
            elif self.state == SPACE:
                self.behind_size(c)
            elif self.state == EXTENSION:
                self.extra += 1
                if c == 13:
                    self.state = SIZE_LF
                elif (c < 32 and c != 9) or c == 127:
                    raise Malformed("a chunk extension holds a control character")
                elif self.extra > MAX_EXTENSION_BYTES:
                    raise Malformed("a chunk extension is too long")
            elif self.state == TRAILER:
                if c == 13:
                    self.state = LAST_LF
                else:
                    self.state = TRAILER_NAME
                    self.in_trailer(TOKEN[c])
            elif self.state == TRAILER_NAME:
                if c == 58:
                    self.state = TRAILER_VALUE
                else:
                    self.in_trailer(TOKEN[c])
            elif self.state == TRAILER_VALUE:
                if c == 13:
                    self.state = TRAILER_LF
                else:
                    self.in_trailer((c >= 32 or c == 9) and c != 127)
            elif self.state == TRAILER_LF:
                self.in_trailer(c == 10)
                self.state = TRAILER
            else:
                if c != 10:
                    raise Malformed("the last chunk is malformed")
                self.at_boundary = True
                self.done = True
                settled[0] = i
        return i

    def feed(self, bytes data):
        """(bytes used, offset up to which all is settled, payload): `advance` for callers in Python.
        Raises Malformed.
        """
        cdef Py_ssize_t settled = 0
        cdef list payload = []
        cdef Py_ssize_t used = self.advance(data, len(data), &settled, payload)
        return used, settled, b"".join(payload)
