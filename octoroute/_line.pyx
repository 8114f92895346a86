"""Lines of text, each out of one tuple of values, after a template that is made once.

Knows what a value looks like on a line, not what it means. What is not plainly harmless is left to a function
of the caller's.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport floor, nearbyint
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef extern from "time.h" nogil:
    ctypedef long time_t
    cdef struct tm:
        pass
    tm *gmtime_r(const time_t *when, tm *into)
    size_t strftime(char *into, size_t size, const char *form, const tm *when)

cdef enum:
    TIME = 0            # seconds since the epoch: 2026-11-25T01:02:03.456Z
    WORD = 1            # str, one of the caller's own harmless words
    TEXT = 2            # str, anybody's words
    COUNT = 3           # int; negative: absent
    TENTHS = 4          # float, one decimal; negative: absent
    STAMP_BYTES = 19

cdef dict KINDS = {"time": TIME, "word": WORD, "text": TEXT, "count": COUNT, "tenths": TENTHS}
cdef double MOST = 1e15          # beyond this, a number of tenths is not exact


cdef class Template:
    """`parts`: (literal, kind) pairs; a value of that kind follows each literal. `end` is behind the last.

    Kinds: `time`, `word`, `text`, `count`, `tenths`. `absent` stands for what there is none of: empty words,
    negative numbers; `empty` for an empty text. A text of `bare` characters only is put between two `quotes`;
    any other is what `quoted` makes of it.
    """

    cdef list literals
    cdef list kinds
    cdef bytes end
    cdef bytes absent
    cdef bytes empty
    cdef bytes quotes
    cdef object quoted
    cdef unsigned char[256] bare
    cdef char *buffer
    cdef Py_ssize_t size
    cdef Py_ssize_t used
    cdef long second             # whose stamp is known
    cdef char[STAMP_BYTES + 1] stamp

    def __init__(self, parts, bytes end, bytes absent, bytes empty, bytes quotes, str bare, quoted):
        self.literals = [literal for literal, _ in parts]
        self.kinds = [KINDS[kind] for _, kind in parts]
        self.end = end
        self.absent = absent
        self.empty = empty
        self.quotes = quotes
        self.quoted = quoted
        self.second = -1
        for i in range(256):
            self.bare[i] = 1 if chr(i) in bare else 0

    def __dealloc__(self):
        free(self.buffer)

    cdef int put(self, const char *text, Py_ssize_t n) except -1:
        cdef char *larger
        if not n:
            return 0                 # there may be no buffer yet, which memcpy must not be given even then
        if self.used + n > self.size:
            larger = <char *> realloc(self.buffer, 2 * (self.used + n))
            if larger == NULL:
                raise MemoryError
            self.buffer = larger
            self.size = 2 * (self.used + n)
        memcpy(self.buffer + self.used, text, n)
        self.used += n
        return 0

    cdef int put_bytes(self, bytes text) except -1:
        return self.put(PyBytes_AS_STRING(text), len(text))

    cdef int put_count(self, long long number) except -1:
        cdef char[20] digits
        cdef int at = 20
        if number < 0:
            return self.put_bytes(self.absent)
        while True:
            at -= 1
            digits[at] = <char> (48 + number % 10)
            number //= 10
            if number == 0:
                return self.put(digits + at, 20 - at)

    cdef int put_tenths(self, double number) except -1:
        cdef long long tenths
        cdef char[2] decimal
        if not 0.0 <= number < MOST:
            return self.put_bytes(self.absent)
        tenths = <long long> nearbyint(number * 10.0)
        self.put_count(tenths // 10)
        decimal[0] = 46
        decimal[1] = <char> (48 + tenths % 10)
        return self.put(decimal, 2)

    cdef int put_time(self, double now) except -1:
        cdef long long milliseconds = <long long> floor(now * 1000.0)
        cdef time_t second = milliseconds // 1000
        cdef tm parts
        cdef char[5] rest
        if second != self.second:
            gmtime_r(&second, &parts)
            strftime(self.stamp, STAMP_BYTES + 1, "%Y-%m-%dT%H:%M:%S", &parts)
            self.second = second
        self.put(self.stamp, STAMP_BYTES)
        milliseconds %= 1000
        rest[0] = 46
        rest[1] = <char> (48 + milliseconds // 100)
        rest[2] = <char> (48 + milliseconds // 10 % 10)
        rest[3] = <char> (48 + milliseconds % 10)
        rest[4] = 90
        return self.put(rest, 5)

    cdef int put_text(self, str text) except -1:
        cdef Py_ssize_t n = 0, i
        cdef const char *utf8 = NULL
        if not text:
            return self.put_bytes(self.empty)
        if text.isascii():
            utf8 = PyUnicode_AsUTF8AndSize(text, &n)
            for i in range(n):
                if not self.bare[<unsigned char> utf8[i]]:
                    utf8 = NULL
                    break
        if utf8 == NULL or (n == len(self.absent) and text.encode() == self.absent):
            return self.put_bytes(self.quoted(text).encode())
        self.put_bytes(self.quotes)
        self.put(utf8, n)
        return self.put_bytes(self.quotes)

    def line(self, tuple values):
        """The line of `values`, one for each part."""
        cdef Py_ssize_t i
        cdef int kind
        if len(values) != len(self.kinds):
            raise ValueError(f"{len(values)} values for {len(self.kinds)} parts")
        self.used = 0
        for i in range(len(values)):
            self.put_bytes(<bytes> self.literals[i])
            kind = self.kinds[i]
            value = values[i]
            if kind == TEXT:
                self.put_text(value)
            elif kind == COUNT:
                self.put_count(value)
            elif kind == TENTHS:
                self.put_tenths(value)
            elif kind == WORD:
                self.put_bytes(value.encode() if value else self.absent)
            else:
                self.put_time(value)
        self.put_bytes(self.end)
        return PyBytes_FromStringAndSize(self.buffer, self.used)
