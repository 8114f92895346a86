"""The heads of what a model server sends, HTTP/1.1.

Strict on purpose: what is not plainly valid raises Malformed and is never passed on, because two readers that
disagree about a boundary are how answers get mixed up. Knows bytes only: no sockets, no clocks, nothing of
the package. Grammar: RFC 9110 sections 5 and 6, RFC 9112 sections 4 to 7.
"""

from libc.string cimport memchr, memcmp

cdef Py_ssize_t MAX_HEAD_BYTES = 65536
cdef Py_ssize_t MAX_HEADERS = 256
cdef int MAX_INFORMATIONAL = 8  # 1xx heads before an answer
cdef int MAX_RECENT = 4
cdef Py_ssize_t MAX_RECENT_BYTES = 1024

# Headers that speak of one connection only (RFC 9110, section 7.6.1), those that are written anew for the
# client, our own names, which a server must not forge, and what leads past the gateway: to the address of a
# server, or to credentials for it.
cdef frozenset PER_HOP = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"content-length", b"x-request-id", b"x-accel-buffering",
    b"alt-svc", b"content-location", b"location", b"www-authenticate",
))
cdef bytes OUR_PREFIX = b"x-octoroute-"
# In the place of a server's key.
HIDDEN = b"[key]"


class Malformed(ValueError):
    """The peer's bytes are no valid HTTP/1.1 response."""


cdef int _c
for _c in range(256):
    TOKEN[_c] = 1 if chr(_c) in (
        "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    ) else 0


cdef class Head:
    """A response head. `headers` are (lower-case name, value) pairs; `end_to_end` the lines that go on to
    the client.
    """

    cpdef hide(self, bytes secret):
        """Nothing that the client gets of it holds `secret` any more."""
        self.reason = self.reason.replace(secret, HIDDEN)
        self.end_to_end = self.end_to_end.replace(secret, HIDDEN)

    def __repr__(self):
        return f"<Head {self.status} {len(self.headers)} headers framing={self.framing} length={self.length}>"


cdef long long decimal(bytes value) except -2:
    cdef Py_ssize_t i
    cdef long long number = 0
    cdef const unsigned char* p = value
    if not 0 < len(value) <= 18:
        raise Malformed("Content-Length is not a number")
    for i in range(len(value)):
        if not 48 <= p[i] <= 57:
            raise Malformed("Content-Length is not a number")
        number = number * 10 + (p[i] - 48)
    return number


cpdef tuple parse_head(bytes data):
    """(Head, bytes used) of the response head at the start of `data`, or (None, 0) while it is incomplete.

    An informational head (1xx) is returned like any other; the caller reads on. Raises Malformed.
    """
    cdef const unsigned char* p = data
    cdef Py_ssize_t n = len(data)
    cdef Py_ssize_t at, line_end, colon, first, last, i, end
    cdef const void* found
    cdef bytes name, value
    cdef bint version_1_1, has_length = False, has_encoding = False, close = False
    cdef Head head
    cdef list kept = []
    cdef set named = set()
    cdef unsigned char c

    end = data.find(b"\r\n\r\n")
    if end < 0:
        if n > MAX_HEAD_BYTES:
            raise Malformed("the head is too large")
        # A first byte that can't be HTTP is refused now, not after 64 KiB of waiting.
        if n and not data.startswith(b"HTTP/1."[:n]):
            raise Malformed("the answer does not begin with HTTP/1.x")
        return None, 0
    if end > MAX_HEAD_BYTES:
        raise Malformed("the head is too large")
    end += 4

    # "HTTP/1.1 200 OK\r\n": the reason may be empty, and the space before it missing, as some servers have
    # it.
    if end < 16 or not data.startswith(b"HTTP/1.") or p[7] not in (48, 49) or p[8] != 32:
        raise Malformed("the status line is malformed")
    version_1_1 = p[7] == 49
    for i in range(9, 12):
        if not 48 <= p[i] <= 57:
            raise Malformed("the status is not a number")
    if p[9] == 48:
        raise Malformed("the status is below 100")
    if p[12] != 32 and p[12] != 13:
        raise Malformed("the status line is malformed")
    head = Head.__new__(Head)
    head.status = (p[9] - 48) * 100 + (p[10] - 48) * 10 + (p[11] - 48)
    head.headers = []
    head.length = -1
    line_end = data.find(b"\r\n", 12)
    for i in range(12, line_end):
        c = p[i]
        if (c < 32 and c != 9) or c == 127:
            raise Malformed("the status line holds a control character")
    head.reason = data[13:line_end] if line_end > 13 else b""

    at = line_end + 2
    while at < end - 2:
        found = memchr(p + at, 13, end - at)
        line_end = <const unsigned char*> found - p
        if p[line_end + 1] != 10:
            raise Malformed("a header holds a bare carriage return")
        colon = at
        while colon < line_end and TOKEN[p[colon]]:
            colon += 1
        if colon == at or colon == line_end or p[colon] != 58:
            raise Malformed("a header's name is malformed")
        first = colon + 1
        last = line_end
        while first < last and (p[first] == 32 or p[first] == 9):
            first += 1
        while last > first and (p[last - 1] == 32 or p[last - 1] == 9):
            last -= 1
        for i in range(first, last):
            c = p[i]
            if (c < 32 and c != 9) or c == 127:
                raise Malformed("a header's value holds a control character")
        name = data[at:colon].lower()
        value = data[first:last]
        if len(head.headers) >= MAX_HEADERS:
            raise Malformed("the head has too many headers")
        head.headers.append((name, value))
        if name == b"content-length":
            if has_length:
                raise Malformed("the head has two Content-Lengths")
            has_length = True
            head.length = decimal(value)
        elif name == b"transfer-encoding":
            if has_encoding or value.lower() != b"chunked":
                raise Malformed("the Transfer-Encoding is not plain chunked")
            has_encoding = True
        elif name == b"connection":
            for value in value.lower().split(b","):
                value = value.strip()
                if value == b"close":
                    close = True
                else:
                    named.add(value)
        elif name == b"content-type":
            value = value[:24].lower()
            head.event_stream = value.startswith(b"text/event-stream")
            head.json = value.startswith(b"application/json")
        if name not in PER_HOP and not name.startswith(OUR_PREFIX):
            kept.append((name, data[at:line_end + 2]))
        at = line_end + 2

    if has_length and has_encoding:
        raise Malformed("the head has both a Content-Length and a Transfer-Encoding")
    if has_encoding and not version_1_1:
        raise Malformed("an HTTP/1.0 answer has a Transfer-Encoding")
    head.end_to_end = b"".join([line for name, line in kept if name not in named])
    if head.status < 200 or head.status == 204 or head.status == 304:
        head.framing = EMPTY
        head.length = 0
    elif has_encoding:
        head.framing = CHUNKED
    elif has_length:
        head.framing = LENGTH if head.length else EMPTY
    else:
        head.framing = UNTIL_CLOSE
    # HTTP/1.0 connections are never kept: the servers in question close them whatever they say.
    head.keep_alive = version_1_1 and not close and head.framing != UNTIL_CLOSE
    return head, end


# (bytes, Head) of heads that were read last: most of a server's are alike to the last byte and mean the same.
cdef list recent = []


cdef Head recall(bytes data, Py_ssize_t *used):
    """The Head that `data` begins with and its length, if it is one of the last, else None."""
    cdef Py_ssize_t n = len(data), length
    cdef tuple known
    for known in recent:
        length = len(<bytes>known[0])
        if length <= n and memcmp(<const char *><bytes>data, <const char *><bytes>known[0], length) == 0:
            used[0] = length
            return <Head>known[1]
    return None


cdef remember(bytes data, Head head):
    if len(data) <= MAX_RECENT_BYTES:
        recent.insert(0, (data, head))
        del recent[MAX_RECENT:]


cdef class HeadReader:
    """Reads the head of one answer after the other through reads of any size; informational ones (1xx) are
    skipped.
    """

    def __cinit__(self):
        self.reset()

    cdef void reset(self):
        self.unparsed = b""
        self.informational = 0

    cdef tuple read(self, bytes data):
        """(Head, what came behind it), or (None, b"") while it is incomplete. Raises Malformed."""
        cdef Py_ssize_t used
        cdef Head head
        if self.unparsed:
            data = self.unparsed + data
        else:
            head = recall(data, &used)
            if head is not None:
                return head, data[used:]
        while True:
            head, used = parse_head(data)
            if head is None:
                self.unparsed = data
                return None, b""
            if head.status == 101:
                raise Malformed("an upgrade nobody asked for")
            if head.status >= 200:
                self.unparsed = b""
                remember(data[:used], head)
                return head, data[used:]
            data = data[used:]
            self.informational += 1
            if self.informational > MAX_INFORMATIONAL:
                raise Malformed("too many informational heads")
