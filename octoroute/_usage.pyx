"""Token counts out of the end of an answer, without decoding it.

Inside a JSON string a quote is escaped, so `"usage":{` can only be a key: no text of a model can pass for it.
The end may begin and break off anywhere.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.string cimport memcmp

from octoroute._json cimport skip_space, skip_string, skip_value

cdef enum:
    MOST_DIGITS = 12

cdef struct Count:
    const char *name
    Py_ssize_t length
    long long value          # -1: not there


cdef long long number(const unsigned char *p, Py_ssize_t i, Py_ssize_t n) noexcept:
    cdef long long value = 0
    cdef int digits = 0
    while i < n and 48 <= p[i] <= 57 and digits <= MOST_DIGITS:
        value = value * 10 + (p[i] - 48)
        digits += 1
        i += 1
    return value if 0 < digits <= MOST_DIGITS else -1


cdef bint read_counts(bytes tail, Py_ssize_t at, Count *counts, int wanted) noexcept:
    """Fills in the members of the object that is the value of the key that ends at `at`. False: it is no
    object.
    """
    cdef const unsigned char *p = <const unsigned char *> PyBytes_AS_STRING(tail)
    cdef Py_ssize_t n = len(tail), i = skip_space(p, at, n), start, end, length
    cdef int k
    if i >= n or p[i] != 58:
        return False
    i = skip_space(p, i + 1, n)
    if i >= n or p[i] != 123:
        return False
    i += 1
    while True:
        start = skip_space(p, i, n)
        if start >= n or p[start] != 34:
            return True
        end = skip_string(p, start, n)
        length = end - start - 2
        i = skip_space(p, end, n)
        if i >= n or p[i] != 58:
            return True
        i = skip_space(p, i + 1, n)
        for k in range(wanted):
            if counts[k].length == length and memcmp(counts[k].name, p + start + 1, length) == 0:
                counts[k].value = number(p, i, n)
        i = skip_space(p, skip_value(p, i, n), n)
        if i >= n or p[i] != 44:
            return True
        i += 1


def tokens(bytes tail):
    """(prompt, completion) tokens of the last `usage` in `tail`, else of llama.cpp's `timings`; -1 for what
    it does not say.

    Chat, completions, embeddings and rerank say prompt_ and completion_; /v1/responses and /v1/messages say
    input_ and output_. `timings` stand at the end of a stream that was not asked for a usage; the prompt is
    what the cache held of it and what had to be read.
    """
    cdef Count[4] usage
    cdef Count[3] timings
    cdef Py_ssize_t at = tail.rfind(b'"usage"')
    usage[0] = Count("prompt_tokens", 13, -1)
    usage[1] = Count("completion_tokens", 17, -1)
    usage[2] = Count("input_tokens", 12, -1)
    usage[3] = Count("output_tokens", 13, -1)
    while at >= 0:
        if read_counts(tail, at + 7, usage, 4):
            return max(usage[0].value, usage[2].value), max(usage[1].value, usage[3].value)
        at = tail.rfind(b'"usage"', 0, at)
    at = tail.rfind(b'"timings"')
    if at >= 0:
        timings[0] = Count("cache_n", 7, -1)
        timings[1] = Count("prompt_n", 8, -1)
        timings[2] = Count("predicted_n", 11, -1)
        read_counts(tail, at + 9, timings, 3)
        if timings[0].value >= 0 and timings[1].value >= 0 and timings[2].value >= 0:
            return timings[0].value + timings[1].value, timings[2].value
    return -1, -1
