"""The body of a request as a model server gets it: the client's own bytes with a few values of ours in them.

One pass over the members of the outermost object; nothing is parsed, and nothing written anew. The bytes must
already have been accepted by a JSON parser: this scanner checks no grammar, only its own bounds.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.string cimport memchr, memcmp

cdef enum:
    MODEL = 0
    TEMPERATURE = 1
    MAX_TOKENS = 2
    MAX_COMPLETION_TOKENS = 3
    STREAM_OPTIONS = 4
    STREAM = 5
    NAMES = 6
    MOST = 32                 # members of these names; none of them makes sense twice
    LONGEST = 21

cdef Py_ssize_t JOINED = 16384     # up to here one copy costs less than a second buffer in the write

cdef const char* NAME[NAMES]
cdef Py_ssize_t LENGTH[NAMES]
NAME[MODEL], LENGTH[MODEL] = "model", 5
NAME[TEMPERATURE], LENGTH[TEMPERATURE] = "temperature", 11
NAME[MAX_TOKENS], LENGTH[MAX_TOKENS] = "max_tokens", 10
NAME[MAX_COMPLETION_TOKENS], LENGTH[MAX_COMPLETION_TOKENS] = "max_completion_tokens", 21
NAME[STREAM_OPTIONS], LENGTH[STREAM_OPTIONS] = "stream_options", 14
NAME[STREAM], LENGTH[STREAM] = "stream", 6

cdef struct Member:
    int name
    Py_ssize_t start
    Py_ssize_t end


class Unreadable(ValueError):
    """A member that can't be found by its bytes: its name is written with escapes, or there are too many.
    `name` is how it reads.
    """

    def __init__(self, str name):
        super().__init__(name)
        self.name = name


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #define OCTO_EACH 0x0101010101010101ULL

    /* The high bit of the lowest byte that is zero; of higher bytes it may be wrong. */
    static inline uint64_t octo_zero_byte(uint64_t word) {
        return (word - OCTO_EACH) & ~word & (OCTO_EACH << 7);
    }

    /* Behind the quote that ends a string, from a place in it that no backslash stands before. */
    static Py_ssize_t octo_string_end(const unsigned char *p, Py_ssize_t i, Py_ssize_t n) {
        while (i + 8 <= n) {
            uint64_t word, hits;
            memcpy(&word, p + i, 8);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
            word = __builtin_bswap64(word);
    #endif
            hits = octo_zero_byte(word ^ (OCTO_EACH * '"')) | octo_zero_byte(word ^ (OCTO_EACH * '\\\\'));
            if (hits == 0) {
                i += 8;
                continue;
            }
            i += __builtin_ctzll(hits) >> 3;
            if (p[i] == '"')
                return i + 1;
            i += 2;
        }
        while (i < n && p[i] != '"')
            i += p[i] == '\\\\' ? 2 : 1;
        return i < n ? i + 1 : n;
    }
    """
    Py_ssize_t string_end "octo_string_end"(const unsigned char* p, Py_ssize_t i, Py_ssize_t n) noexcept


cdef Py_ssize_t skip_space(const unsigned char* p, Py_ssize_t i, Py_ssize_t n) noexcept:
    while i < n and (p[i] == 32 or p[i] == 10 or p[i] == 13 or p[i] == 9):
        i += 1
    return i


cdef Py_ssize_t skip_string(const unsigned char* p, Py_ssize_t i, Py_ssize_t n) noexcept:
    """`i` is at the opening quote; the answer is behind the closing one."""
    cdef const unsigned char* found
    cdef Py_ssize_t quote, back
    i += 1
    if i < n:
        found = <const unsigned char*> memchr(p + i, 34, n - i)
        if found == NULL:
            return n
        quote = found - p
        # Escaped if an odd number of backslashes stands before it. The opening quote ends the count.
        back = quote - 1
        while back >= i and p[back] == 92:
            back -= 1
        if (quote - 1 - back) % 2 == 0:
            return quote + 1
        # Where one quote is escaped others will be, too near to each other for memchr.
        return string_end(p, quote + 1, n)
    return n


cdef Py_ssize_t skip_value(const unsigned char* p, Py_ssize_t i, Py_ssize_t n) noexcept:
    cdef Py_ssize_t depth = 0
    cdef unsigned char c
    if i < n and p[i] == 34:
        return skip_string(p, i, n)
    while i < n:
        c = p[i]
        if c == 34:
            i = skip_string(p, i, n)
            continue
        if c == 123 or c == 91:
            depth += 1
        elif c == 125 or c == 93:
            if depth == 0:
                return i
            depth -= 1
            if depth == 0:
                return i + 1
        elif depth == 0 and (c == 44 or c == 32 or c == 10 or c == 13 or c == 9):
            return i
        i += 1
    return n


cdef int name_of(const unsigned char *p, Py_ssize_t n) noexcept:
    cdef int i
    for i in range(NAMES):
        if LENGTH[i] == n and memcmp(NAME[i], p, n) == 0:
            return i
    return -1


cdef int hex_of(unsigned char c) noexcept:
    if 48 <= c <= 57:
        return c - 48
    c |= 32
    return c - 87 if 97 <= c <= 102 else -1


cdef int disguised_name(const unsigned char *p, Py_ssize_t n) noexcept:
    """Which of NAMES a string with escapes stands for, -1 for none of them. All are plain letters, so that
    only `\\uXXXX` can hide one.
    """
    cdef unsigned char[LONGEST] plain
    cdef Py_ssize_t i = 0, length = 0
    cdef int code, k
    while i < n:
        if length == LONGEST:
            return -1
        code = p[i]
        if code == 92:
            if i + 6 > n or p[i + 1] != 117:
                return -1
            code = 0
            for k in range(4):
                code = code * 16 + hex_of(p[i + 2 + k])
            i += 5
        if not 0 < code < 128:
            return -1
        plain[length] = <unsigned char> code
        length += 1
        i += 1
    return name_of(plain, length)


cdef int find_members(const unsigned char *p, Py_ssize_t n, Member *members, Py_ssize_t *brace) except -1:
    """Where the members called NAMES stand, and the closing brace; how many there are."""
    cdef Py_ssize_t i = skip_space(p, 0, n), start, end, value
    cdef int count = 0, name
    brace[0] = n
    if i >= n or p[i] != 123:
        return 0
    i += 1
    while True:
        i = skip_space(p, i, n)
        if i >= n or p[i] != 34:
            break
        start = i + 1
        end = skip_string(p, i, n)
        i = skip_space(p, end, n)
        if i >= n or p[i] != 58:
            break
        value = skip_space(p, i + 1, n)
        i = skip_value(p, value, n)
        name = name_of(p + start, end - 1 - start)
        if name < 0 and memchr(p + start, 92, end - start) != NULL:
            name = disguised_name(p + start, end - 1 - start)
            if name >= 0 and name != STREAM:
                raise Unreadable(NAME[name].decode())
        elif name >= 0:
            if count == MOST:
                raise Unreadable(NAME[name].decode())
            members[count] = Member(name, value, i)
            count += 1
        i = skip_space(p, i, n)
        if i >= n or p[i] != 44:
            break
        i += 1
    brace[0] = i
    return count


cdef class Splicer:
    """What one endpoint wants in place of a client's values, as JSON. Built once per endpoint.

    `model` always. `temperature` and `max_tokens` where the request leaves them open or `null`, the second
    not where it has `max_completion_tokens`. `stream_options` only on demand, and `stream` where a plain
    request is made one for a stream.
    """

    cdef bytes model
    cdef bytes temperature
    cdef bytes max_tokens
    cdef bytes stream_options

    def __init__(self, bytes model, bytes temperature, bytes max_tokens, bytes stream_options):
        self.model = model
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.stream_options = stream_options

    def splice(self, bytes body, bint fill, bint with_stream_options, bytes as_stream=b""):
        """The body in pieces, one where it is small; views of the client's bytes where it is large.

        `fill`: whether `temperature` and `max_tokens` are filled in. `as_stream`: further members, each
        behind a comma, of the stream that the request is made one for; empty: it is what it is. Raises
        Unreadable.
        """
        cdef const unsigned char *p = <const unsigned char *> PyBytes_AS_STRING(body)
        cdef Py_ssize_t n = len(body), at = 0, brace
        cdef Member[MOST] members
        cdef int count = find_members(p, n, members, &brace), i, name
        cdef bint[NAMES] present, open_
        cdef list pieces = []
        cdef bytes value, added = b""
        for i in range(NAMES):
            present[i] = False
            open_[i] = True
        for i in range(count):
            # The last of a name counts, as it does for parsers.
            name = members[i].name
            present[name] = True
            open_[name] = p[members[i].start] == 110
        if not fill:
            open_[TEMPERATURE] = open_[MAX_TOKENS] = False
        elif not open_[MAX_COMPLETION_TOKENS]:
            open_[MAX_TOKENS] = False
        source = body if n < JOINED else memoryview(body)
        for i in range(count):
            name = members[i].name
            if name == MODEL:
                value = self.model
            elif name == TEMPERATURE and open_[TEMPERATURE]:
                value = self.temperature
            elif name == MAX_TOKENS and open_[MAX_TOKENS]:
                value = self.max_tokens
            elif name == STREAM_OPTIONS and with_stream_options:
                value = self.stream_options
            elif name == STREAM and as_stream:
                value = b"true"
            else:
                continue
            pieces.append(source[at:members[i].start])
            pieces.append(value)
            at = members[i].end
        if open_[MAX_TOKENS] and not present[MAX_TOKENS]:
            added += b',"max_tokens":' + self.max_tokens
        if open_[TEMPERATURE] and not present[TEMPERATURE]:
            added += b',"temperature":' + self.temperature
        if with_stream_options and not present[STREAM_OPTIONS]:
            added += b',"stream_options":' + self.stream_options
        if as_stream:
            added += as_stream if present[STREAM] else b',"stream":true' + as_stream
        if added and brace < n:
            pieces.append(source[at:brace])
            pieces.append(added)
            at = brace
        pieces.append(source[at:n])
        return [b"".join(pieces)] if n < JOINED else pieces
