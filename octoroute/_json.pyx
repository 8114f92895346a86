"""Where the members of a JSON object stand in its bytes, so that one value can be replaced without writing it
all anew.

The bytes must already have been accepted by a JSON parser: this scanner checks no grammar, only its own
bounds.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.string cimport memchr, memcmp

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


def member_spans(bytes body, tuple names):
    """[(index into names, start, end)] of the values of the members of the object `body` that are called so.

    A name that is written with escapes is answered with index -1 and the span of the name itself, quotes
    included; the caller decodes it. Nested objects are not looked into. A name that stands twice is answered
    twice.
    """
    cdef const unsigned char* p = body
    cdef Py_ssize_t n = len(body), i, start, end, value, length
    cdef Py_ssize_t at
    cdef bytes name
    cdef list spans = []
    i = skip_space(p, 0, n)
    if i >= n or p[i] != 123:
        return spans
    i += 1
    while True:
        i = skip_space(p, i, n)
        if i >= n or p[i] != 34:
            return spans
        start = i
        end = skip_string(p, i, n)
        i = skip_space(p, end, n)
        if i >= n or p[i] != 58:
            return spans
        value = skip_space(p, i + 1, n)
        i = skip_value(p, value, n)
        length = end - start - 2
        if memchr(p + start, 92, end - start) != NULL:
            spans.append((-1, start, end))
        else:
            for at in range(len(names)):
                name = names[at]
                if len(name) == length and memcmp(PyBytes_AS_STRING(name), p + start + 1, length) == 0:
                    spans.append((at, value, i))
        i = skip_space(p, i, n)
        if i >= n or p[i] != 44:
            return spans
        i += 1
