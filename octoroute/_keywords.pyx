"""Which of several groups of words a text has, whatever their case: one pass, however many words there are.

Lower case is that of str.lower(). Of the characters beyond ASCII two alone have an ASCII letter in it:
U+212A, the kelvin sign, is a k; U+0130 is an i with a mark of its own behind it, so that no word goes on
there.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from "Python.h":
    int PyUnicode_KIND(object text)
    const void *PyUnicode_DATA(object text)

cdef enum:
    MOST_WORDS = 64
    KELVIN = 0x212A

ctypedef fused Character:
    uint8_t
    uint16_t
    uint32_t


cdef inline uint32_t lowered(uint32_t c) noexcept:
    if c < 128:
        return c | 32 if 65 <= c <= 90 else c
    return 107 if c == KELVIN else c


cdef class Keywords:
    """`groups` of words: printable ASCII, in lower case, 64 at most. A word that ends with an i is none.
    Raises ValueError.
    """
    cdef bytes letters              # of all words, one behind the other
    cdef int count
    cdef int groups
    cdef int[MOST_WORDS] group
    cdef int[MOST_WORDS] begin
    cdef int[MOST_WORDS] length
    cdef int[MOST_WORDS] following  # the next word with the same first letter, by groups; -1: none
    cdef int[128] first             # the first of them

    def __init__(self, groups):
        cdef int index, at
        words = [(index, word) for index, group in enumerate(groups) for word in group]
        if len(words) > MOST_WORDS:
            raise ValueError(f"{len(words)} words; at most {MOST_WORDS}")
        self.letters = b"".join(word.encode("ascii") for _, word in words)
        self.count = len(words)
        self.groups = len(groups)
        for at in range(128):
            self.first[at] = -1
        at = len(self.letters)
        for number in reversed(range(self.count)):
            index, word = words[number]
            if not word or word != word.lower() or not word.isprintable() or word.endswith("i"):
                raise ValueError(f"not a keyword: {word!r}")
            at -= len(word)
            self.group[number] = index
            self.begin[number] = at
            self.length[number] = len(word)
            self.following[number] = self.first[ord(word[0])]
            self.first[ord(word[0])] = number

    def find(self, str text):
        """The index of the first group of which a word stands in `text`, wherever that is; -1: none."""
        cdef int kind = PyUnicode_KIND(text), found
        cdef const void *data = PyUnicode_DATA(text)
        if kind == 1:
            found = self.scan(<const uint8_t *> data, len(text))
        elif kind == 2:
            found = self.scan(<const uint16_t *> data, len(text))
        else:
            found = self.scan(<const uint32_t *> data, len(text))
        return found if found < self.groups else -1

    cdef int scan(self, const Character *text, Py_ssize_t n) noexcept:
        # The number of groups: none.
        cdef const char *letters = PyBytes_AS_STRING(self.letters)
        cdef const char *letter
        cdef int best = self.groups, word, i
        cdef Py_ssize_t at
        cdef uint32_t c
        for at in range(n):
            c = lowered(text[at])
            if c >= 128:
                continue
            word = self.first[c]
            # Words of groups that come later than the best one so far are of no interest.
            while word >= 0 and self.group[word] < best:
                if self.length[word] <= n - at:
                    letter = letters + self.begin[word]
                    i = 1
                    while i < self.length[word] and lowered(text[at + i]) == <uint8_t> letter[i]:
                        i += 1
                    if i == self.length[word]:
                        best = self.group[word]
                        if best == 0:
                            return 0
                        break
                word = self.following[word]
        return best
