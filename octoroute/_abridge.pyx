"""A large body with its long strings cut short, so that a JSON parser has little to read.

What stands between the quotes of a long string is checked here, as a parser would, and its characters are
counted; of the string only both ends are left. All that stands outside of long strings is left as it is, so
the parser accepts the abridged body exactly if it would have accepted the whole one (RFC 8259; what a string
may hold: section 7, and UTF-8 as RFC 3629 has it).
"""

from libc.stdint cimport int32_t
from libc.string cimport memchr

from octoroute._json cimport skip_string

cdef enum:
    LONG = 16384              # characters
    EDGE = 4096               # of them, at least, are left at either end
    STEP = 4096               # bytes between the places where the last characters may begin
    PLACES = 16               # a character is written in 12 bytes at most, so 13 steps hold an edge of them
    MOST = 1024               # long strings; a body of more is left whole

# No string that is left whole has as many characters, so an abridged one is known by its length: number n of
# them has CUT + n.
CUT = LONG
END = EDGE

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    typedef signed char octo_bytes __attribute__((vector_size(16)));

    static inline int octo_four_hex(const unsigned char *p) {
        int code = 0, k;
        for (k = 0; k < 4; k++) {
            unsigned char c = p[k], low = c | 32;
            if (c >= '0' && c <= '9')
                code = code * 16 + (c - '0');
            else if (low >= 'a' && low <= 'f')
                code = code * 16 + (low - 'a' + 10);
            else
                return -1;
        }
        return code;
    }

    /* Behind an escape at p[i], in `n` bytes of a string; -1: it is none. */
    static Py_ssize_t octo_escape_end(const unsigned char *p, Py_ssize_t i, Py_ssize_t n) {
        int code;
        if (i + 2 > n)
            return -1;
        if (p[i + 1] != 'u')
            return p[i + 1] && strchr("\\"\\\\/bfnrt", p[i + 1]) != NULL ? i + 2 : -1;
        if (i + 6 > n || (code = octo_four_hex(p + i + 2)) < 0 || (code >= 0xdc00 && code < 0xe000))
            return -1;
        if (code < 0xd800 || code >= 0xe000)
            return i + 6;
        /* The first half of a pair: the second has to follow. */
        if (i + 12 > n || p[i + 6] != '\\\\' || p[i + 7] != 'u')
            return -1;
        code = octo_four_hex(p + i + 8);
        return code >= 0xdc00 && code < 0xe000 ? i + 12 : -1;
    }

    static inline int octo_follows(unsigned char c) {
        return (c & 0xc0) == 0x80;
    }

    /* Behind a character of several bytes of UTF-8 at p[i]; -1: it is none (RFC 3629 section 4). */
    static inline Py_ssize_t octo_wide_end(const unsigned char *p, Py_ssize_t i, Py_ssize_t n) {
        unsigned char c = p[i];
        if (c >= 0xe0 && c < 0xf0) {
            if (i + 3 > n || !octo_follows(p[i + 1]) || !octo_follows(p[i + 2]))
                return -1;
            if ((c == 0xe0 && p[i + 1] < 0xa0) || (c == 0xed && p[i + 1] > 0x9f))
                return -1;
            return i + 3;
        }
        if (c >= 0xc2 && c < 0xe0)
            return i + 2 <= n && octo_follows(p[i + 1]) ? i + 2 : -1;
        if (c < 0xf0 || c > 0xf4 || i + 4 > n)
            return -1;
        if (!octo_follows(p[i + 1]) || !octo_follows(p[i + 2]) || !octo_follows(p[i + 3]))
            return -1;
        if ((c == 0xf0 && p[i + 1] < 0x90) || (c == 0xf4 && p[i + 1] > 0x8f))
            return -1;
        return i + 4;
    }

    /* Behind the last character that begins before `stop`, in a string's `n` bytes; -1: it holds what no
       string may. `chars` grows by the characters passed. */
    static Py_ssize_t octo_walk(
        const unsigned char *p, Py_ssize_t i, Py_ssize_t stop, Py_ssize_t n, Py_ssize_t *chars
    ) {
        Py_ssize_t begin = i, surplus = 0;
        while (i < stop) {
            Py_ssize_t end;
            while (i + 16 <= stop) {
                octo_bytes piece, odd;
                uint64_t halves[2];
                memcpy(&piece, p + i, 16);
                /* Signed, so that bytes above 127 are below 32 too. */
                odd = (octo_bytes)(piece < 32) | (octo_bytes)(piece == '\\\\');
                memcpy(halves, &odd, 16);
                if (halves[0] | halves[1])
                    break;
                i += 16;
            }
            while (i < stop && p[i] >= 32 && p[i] < 128 && p[i] != '\\\\')
                i++;
            if (i == stop)
                break;
            if (p[i] < 32)
                return -1;
            if (p[i] == '\\\\') {
                end = octo_escape_end(p, i, n);
                if (end < 0)
                    return -1;
                surplus += end - i - 1;
                i = end;
            }
            /* Others like it follow, mostly. */
            while (i < stop && p[i] > 127) {
                end = octo_wide_end(p, i, n);
                if (end < 0)
                    return -1;
                surplus += end - i - 1;
                i = end;
            }
        }
        *chars += i - begin - surplus;
        return i;
    }
    """
    Py_ssize_t walk "octo_walk"(
        const unsigned char *p, Py_ssize_t i, Py_ssize_t stop, Py_ssize_t n, Py_ssize_t *chars
    ) noexcept


cdef struct Cut:
    Py_ssize_t chars          # of the whole string; fewer than LONG: it is not cut
    Py_ssize_t begin          # what is left out of it
    Py_ssize_t end
    Py_ssize_t left           # characters that stay


cdef bint find_cut(const unsigned char *p, Py_ssize_t n, Cut *cut) noexcept:
    """Where to cut the `n` bytes between a string's quotes; whether a string may hold them."""
    cdef Py_ssize_t[PLACES] place
    cdef Py_ssize_t[PLACES] before        # characters before the place of that index
    cdef Py_ssize_t i = 0, chars = 0
    cdef int32_t count = 0, k
    while chars < EDGE and i < n:
        i = walk(p, i, min(i + EDGE - chars, n), n, &chars)
        if i < 0:
            return False
    cut.begin = i
    while i < n:
        place[count % PLACES] = i
        before[count % PLACES] = chars
        count += 1
        i = walk(p, i, min(i + STEP, n), n, &chars)
        if i < 0:
            return False
    cut.chars = chars
    if chars < LONG:
        return True
    k = count - 1
    while chars - before[k % PLACES] < EDGE:
        k -= 1
    cut.end = place[k % PLACES]
    cut.left = EDGE + chars - before[k % PLACES]
    return True


def abridge(bytes body):
    """The body with its long strings cut, and how many characters each of them had, as they come: string
    number n stands in it with CUT + n characters, its own first and last END among them, spaces between.

    None where nothing is to be gained, or a long string is none: a parser then says what is wrong with it.
    """
    cdef const unsigned char *p = body
    cdef const unsigned char *quote
    cdef Py_ssize_t n = len(body), at = 0, i = 0, start, end
    cdef list pieces = [], lengths = []
    cdef Cut cut
    while i < n:
        quote = <const unsigned char *>memchr(p + i, 34, n - i)
        if quote == NULL:
            break
        start = quote - p + 1
        i = skip_string(p, start - 1, n)
        end = i - 1
        if end - start < LONG:
            continue
        if p[end] != 34 or len(lengths) == MOST or not find_cut(p + start, end - start, &cut):
            return None
        if cut.chars < LONG:
            continue
        pieces.append(body[at:start + cut.begin])
        pieces.append(b" " * (LONG + len(lengths) - cut.left))
        lengths.append(cut.chars)
        at = start + cut.end
    if not lengths:
        return None
    pieces.append(body[at:])
    return b"".join(pieces), tuple(lengths)
