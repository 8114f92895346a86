"""The heads of ordinary requests, HTTP/1.1: what the usual client sends, read in one pass.

Ordinary is a POST with a JSON body of known length on a connection that stays, its head whole in one read,
and nothing in it that asks for thought. `read_head` answers None for all else, which is no judgement:
aiohttp's parser reads it then, and says what is wrong with it, if anything is. So this reader may refuse at
the slightest doubt, and must never accept what that parser reads in another way
(tests/test_request_head.py).
Knows bytes only. Grammar: RFC 9110 sections 5 and 6, RFC 9112 sections 2 to 6.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memchr, memcmp, memcpy

cdef enum:
    MAX_HEAD = 16384
    MAX_HEADERS = 100
    MAX_NAME = 32
    MAX_PATH = 64
    MAX_ID = 128

cdef enum:
    PASSES = 0          # goes on to the server
    STAYS = 1           # does not
    STOPS = 2           # not ordinary
    HOST = 3
    CONTENT_LENGTH = 4
    CONTENT_TYPE = 5
    CONNECTION = 6
    REQUEST_ID = 7
    CREDENTIAL = 8      # does not go on; of several, aiohttp's road makes sense

# Not sent on: what speaks of one connection, what is written anew, credentials (a client's key is for the
# gateway), and what would make the server compress its answer.
NOT_FORWARDED = frozenset((
    b"accept-encoding", b"api-key", b"authorization", b"connection", b"content-encoding", b"content-length",
    b"content-type", b"cookie", b"expect", b"host", b"http2-settings", b"keep-alive", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"x-api-key",
    b"x-octoroute-importance", b"x-octoroute-session", b"x-octoroute-task-type", b"x-request-id",
))
cdef dict MEANINGS = {
    b"content-encoding": STOPS, b"expect": STOPS, b"transfer-encoding": STOPS, b"upgrade": STOPS,
    b"te": STOPS, b"trailer": STOPS, b"http2-settings": STOPS, b"keep-alive": STOPS,
    b"proxy-connection": STOPS,
    b"host": HOST, b"content-length": CONTENT_LENGTH, b"content-type": CONTENT_TYPE,
    b"connection": CONNECTION, b"x-request-id": REQUEST_ID,
    b"authorization": CREDENTIAL, b"x-api-key": CREDENTIAL, b"api-key": CREDENTIAL,
}

cdef struct Named:
    const char *name
    Py_ssize_t length
    int meaning

cdef tuple _names = tuple(sorted(NOT_FORWARDED))     # keeps the bytes that `known` points into
cdef Named[32] known
cdef int known_count = 0

cdef unsigned char[256] LOWER     # of a character of a name (RFC 9110 section 5.6.2); 0: it is none
cdef unsigned char[256] ID        # whether a character may stand in a request's id


def _fill_tables():
    global known_count
    for name in _names:
        known[known_count].name = PyBytes_AS_STRING(name)
        known[known_count].length = len(name)
        known[known_count].meaning = MEANINGS.get(name, STAYS)
        known_count += 1
    for c in range(256):
        LOWER[c] = ID[c] = 0
    for character in "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ":
        LOWER[ord(character)] = ord(character.lower())
    for character in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:":
        ID[ord(character)] = 1


_fill_tables()


cdef class RequestHead:
    """An ordinary request's head. `body_at`: where its body of `length` bytes begins in what was read.

    `forwarded` are the header lines that go on to the server. `request_id` is the client's own where it is
    sane, else None.
    """

    cpdef get(self, str name):
        """The value of a header of any case, None where it is absent. Costs next to nothing where the
        request has no header that is kept from the server.
        """
        cdef bytes wanted, line, found
        if not self._has_own:
            return None
        wanted = name.lower().encode()
        for line in self._head.split(b"\r\n")[1:]:
            found, _, value = line.partition(b":")
            if found.lower() == wanted:
                return value.strip(b" \t").decode()
        return None


cdef int meaning_of(const unsigned char *name, Py_ssize_t length) noexcept:
    cdef int i
    for i in range(known_count):
        if known[i].length == length and memcmp(known[i].name, name, length) == 0:
            return known[i].meaning
    return PASSES


cdef bint is_json(const unsigned char *value, Py_ssize_t length) noexcept:
    if length < 16 or memcmp(value, b"application/json", 16) != 0:
        return False
    return length == 16 or (length == 31 and memcmp(value + 16, b"; charset=utf-8", 15) == 0)


cdef bint is_keep_alive(const unsigned char *value, Py_ssize_t length) noexcept:
    return length == 10 and (memcmp(value, b"keep-alive", 10) == 0 or memcmp(value, b"Keep-Alive", 10) == 0)


cpdef RequestHead read_head(bytes data):
    """The RequestHead at the start of `data`, None where the request is not ordinary."""
    cdef const unsigned char *p = <const unsigned char *> PyBytes_AS_STRING(data)
    cdef Py_ssize_t n = len(data), at, end, colon, first, last, i
    cdef const unsigned char *found
    cdef unsigned char c
    cdef unsigned char[MAX_NAME] lower
    cdef char[MAX_HEAD] kept
    cdef Py_ssize_t kept_bytes = 0, length = -1
    cdef int meaning, headers = 0
    cdef bint has_host = False, has_type = False, has_connection = False, has_own = False, sane
    cdef bint has_credential = False
    cdef RequestHead head
    if n < 32 or memcmp(p, b"POST /", 6) != 0:
        return None
    at = 6
    while at < n and at < 5 + MAX_PATH and 33 <= p[at] < 127 and p[at] != 63 and p[at] != 35 and p[at] != 37:
        at += 1
    if at + 11 > n or memcmp(p + at, b" HTTP/1.1\r\n", 11) != 0:
        return None
    head = RequestHead.__new__(RequestHead)
    head.path = data[5:at].decode("ascii")
    head.request_id = None
    at += 11
    while True:
        if at + 2 > n or at > MAX_HEAD - 2:
            return None
        if p[at] == 13:
            if p[at + 1] != 10:
                return None
            break
        found = <const unsigned char *> memchr(p + at, 13, n - at)
        if found == NULL:
            return None
        end = found - p
        if end + 2 > MAX_HEAD or end + 2 > n or p[end + 1] != 10:
            return None
        headers += 1
        colon = at
        while colon < end and LOWER[p[colon]]:
            if colon - at < MAX_NAME:
                lower[colon - at] = LOWER[p[colon]]
            colon += 1
        if colon == at or colon == end or p[colon] != 58 or headers > MAX_HEADERS:
            return None
        first, last = colon + 1, end
        while first < last and (p[first] == 32 or p[first] == 9):
            first += 1
        while last > first and (p[last - 1] == 32 or p[last - 1] == 9):
            last -= 1
        for i in range(first, last):
            c = p[i]
            if (c < 32 and c != 9) or c > 126:
                return None
        meaning = meaning_of(lower, colon - at) if colon - at <= MAX_NAME else PASSES
        if meaning == PASSES:
            memcpy(kept + kept_bytes, p + at, end + 2 - at)
            kept_bytes += end + 2 - at
        elif meaning == STAYS:
            has_own = True
        elif meaning == CREDENTIAL:
            if has_credential:
                return None
            has_credential = has_own = True
        elif meaning == HOST:
            if has_host or first == last:
                return None
            has_host = True
        elif meaning == CONTENT_LENGTH:
            if length >= 0 or not 1 <= last - first <= 10:
                return None
            length = 0
            for i in range(first, last):
                if not 48 <= p[i] <= 57:
                    return None
                length = length * 10 + (p[i] - 48)
        elif meaning == CONTENT_TYPE:
            if has_type or not is_json(p + first, last - first):
                return None
            has_type = True
        elif meaning == CONNECTION:
            if has_connection or not is_keep_alive(p + first, last - first):
                return None
            has_connection = True
        elif meaning == REQUEST_ID:
            if head.request_id is not None:
                return None
            sane = 0 < last - first <= MAX_ID
            for i in range(first, last):
                sane = sane and ID[p[i]]
            if not sane:
                return None
            head.request_id = data[first:last].decode("ascii")
        else:
            return None
        at = end + 2
    if not (has_host and has_type and length > 0):
        return None
    head.body_at = at + 2
    head.length = length
    head.forwarded = PyBytes_FromStringAndSize(kept, kept_bytes)
    head._has_own = has_own
    if has_own:
        head._head = data[:at]
    return head


cdef class Body:
    """A request's body of `length` bytes as it comes in pieces. Each byte is copied once, into its place."""

    def __init__(self, Py_ssize_t length):
        if length < 0:
            raise ValueError(f"a body can't have {length} bytes")
        self.whole = PyBytes_FromStringAndSize(NULL, length)
        self.length = self.missing = length

    cpdef Py_ssize_t add(self, bytes data, Py_ssize_t at=0) except -1:
        """Takes what is missing from `data`, behind the first `at` bytes; where in `data` the rest begins."""
        cdef Py_ssize_t count = min(self.missing, len(data) - at)
        cdef char *into
        if count > 0:
            into = PyBytes_AS_STRING(self.whole) + self.length - self.missing
            memcpy(into, PyBytes_AS_STRING(data) + at, count)
            self.missing -= count
            at += count
        return at

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self.whole is None:
            raise BufferError("the body has been taken")
        # Nobody else has seen these bytes yet, so they may be written.
        PyBuffer_FillInfo(
            view, self, PyBytes_AS_STRING(self.whole) + self.length - self.missing, self.missing, 0, flags
        )

    cpdef place(self):
        """Where what is missing belongs. What is written there, from the start, is told to `grew`."""
        return memoryview(self)

    cpdef grew(self, Py_ssize_t count):
        """`count` bytes were read into what was missing. Raises ValueError for more than that."""
        if not 0 <= count <= self.missing:
            raise ValueError(f"{count} bytes were read where {self.missing} were missing")
        self.missing -= count

    cpdef take(self):
        """The whole body, once nothing is missing. Raises ValueError before, and after."""
        if self.missing or self.whole is None:
            raise ValueError(f"{self.missing} bytes are missing")
        whole, self.whole = self.whole, None
        return whole
