"""Prompts by the hashes of their beginnings, and which server was sent which of them last.

Owns: the hashing of a body's prompt, and the table of hashes, which all workers share.
Must not: know an endpoint as more than a slot number, or decide anything.
"""

from mmap import mmap

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcmp, memcpy

from octoroute._json cimport skip_space, skip_string, skip_value
from octoroute._prefix cimport WAYS

cdef extern from *:
    """
    /* One step of wyhash (Wang Yi, 2019): both halves of a 128-bit product, folded. */
    static inline uint64_t octo_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }

    #define octo_relaxed_load(from) __atomic_load_n((from), __ATOMIC_RELAXED)
    #define octo_relaxed_store(to, value) __atomic_store_n((to), (value), __ATOMIC_RELAXED)
    """
    uint64_t fold "octo_fold"(uint64_t a, uint64_t b) noexcept
    uint64_t load_word "octo_relaxed_load"(const uint64_t *word) noexcept
    void store_word "octo_relaxed_store"(uint64_t *word, uint64_t value) noexcept

cdef enum:
    FIRST_WIDTH = 512                # bytes of a block, about 128 tokens
    BLOCKS_OF_A_WIDTH = 32           # then blocks are four times as wide
    MOST_BLOCKS = 128                # 1.4 MB: what comes behind is not looked at
    SLOT_BITS = 20

# The first words of wyhash's secret. Fixed, so that all workers and all gateways hash alike.
cdef uint64_t SECRET = <uint64_t>0x2d358dccaa6c78a5
cdef uint64_t OTHER_SECRET = <uint64_t>0x8bb84b93962eacc9

cdef enum Part:
    NO_PART, AHEAD, PROMPT


cdef inline uint64_t absorb(uint64_t state, const unsigned char *p, Py_ssize_t n) noexcept:
    """The hash of `n` bytes behind what made `state`. A last step of fewer than 16 is filled with zeros."""
    cdef uint64_t words[2]
    cdef Py_ssize_t i = 0
    while i + 16 <= n:
        memcpy(words, p + i, 16)
        state = fold(words[0] ^ SECRET, words[1] ^ state)
        i += 16
    if i < n:
        words[0] = words[1] = 0
        memcpy(words, p + i, n - i)
        state = fold(words[0] ^ SECRET, words[1] ^ state)
    return fold(state ^ OTHER_SECRET, <uint64_t>n ^ SECRET)


cdef Part part_of(const unsigned char *name, Py_ssize_t n) noexcept:
    """What a member of a request's body is to the prompt. Templates put tools and instructions first."""
    if n == 8 and memcmp(name, b"messages", 8) == 0:
        return PROMPT
    if (n == 6 and memcmp(name, b"prompt", 6) == 0) or (n == 5 and memcmp(name, b"input", 5) == 0):
        return PROMPT
    if n == 5 and memcmp(name, b"tools", 5) == 0:
        return AHEAD
    if (n == 6 and memcmp(name, b"system", 6) == 0) or (n == 12 and memcmp(name, b"instructions", 12) == 0):
        return AHEAD
    return NO_PART


cdef Py_ssize_t opening_end(
    const unsigned char *p, Py_ssize_t start, Py_ssize_t end, Py_ssize_t opening, Py_ssize_t *begin
) noexcept:
    """Where the opening of a prompt at `start` ends: behind the message of that index, or the first block.

    `begin` becomes where that message begins.
    """
    cdef Py_ssize_t i = skip_space(p, start, end), stop = start
    begin[0] = start
    if p[start - 1] != 91 or i >= end or p[i] != 123:
        return min(start + FIRST_WIDTH, end)
    while opening >= 0 and i < end:
        begin[0] = i
        stop = skip_value(p, i, end)
        i = skip_space(p, skip_space(p, stop, end) + 1, end)
        opening -= 1
    return stop


def prompt_hashes(bytes body, Py_ssize_t opening=0):
    """Native 64-bit words: first the prompt's opening, then every beginning that is known by a hash, shortest
    first, the opening among them. b"" where the body has no prompt.

    The body must have been accepted by a JSON parser. The prompt is hashed as it was written, so a
    conversation that grows shares its beginnings as long as its client writes it the same way again; other
    members may stand in any order. `opening`: the index of the message with which conversations begin to
    differ. The opening ends with it, and a beginning that has less than a block of it is none: one system
    prompt for all would draw all to one server.
    """
    cdef const unsigned char *p = body
    cdef Py_ssize_t n = len(body), i, name, behind, value, start = -1, end = -1, width = FIRST_WIDTH
    cdef Py_ssize_t begin = 0, opened
    cdef uint64_t state = SECRET
    cdef uint64_t hashes[MOST_BLOCKS + 2]
    cdef int32_t count = 1, blocks = 0
    cdef Part part
    i = skip_space(p, 0, n)
    while i < n and (p[i] == 123 or p[i] == 44):
        name = skip_space(p, i + 1, n)
        if name >= n or p[name] != 34:
            break
        behind = skip_string(p, name, n)
        value = skip_space(p, skip_space(p, behind, n) + 1, n)
        if value >= n:
            break
        i = skip_value(p, value, n)
        part = part_of(p + name + 1, behind - name - 2)
        if part == PROMPT and (p[value] == 91 or p[value] == 34):
            start, end = value + 1, i - 1
        elif part == AHEAD:
            # Added up: the order of the members does not matter.
            state += absorb(<uint64_t>(behind - name), p + value, i - value)
        i = skip_space(p, i, n)
    if start < 0:
        return b""
    opened = opening_end(p, start, end, opening, &begin)
    i = start
    hashes[0] = 0
    while blocks < MOST_BLOCKS and i + width <= end:
        if i <= opened < i + width:
            hashes[0] = hashes[count] = absorb(state, p + i, opened - i)
            count += 1
        state = absorb(state, p + i, width)
        i += width
        if i >= begin + FIRST_WIDTH:
            hashes[count] = state
            count += 1
        blocks += 1
        if blocks % BLOCKS_OF_A_WIDTH == 0:
            width *= 4
    if opened >= i:
        hashes[0] = hashes[count] = absorb(state, p + i, min(opened - i, width))
        count += 1
    return PyBytes_FromStringAndSize(<const char *>hashes, count * <Py_ssize_t>sizeof(uint64_t))


@cython.final
@cython.no_gc                    # it refers to names and memory only, which refer to nothing
cdef class PrefixIndex:
    """Which slots were sent a prompt with a given beginning, in anonymous shared memory.

    `buckets` of 8 words, a power of two; the default is 4 MiB, touched as it fills. A word is 44 bits of the
    hash and a slot, the newest stand first, and the oldest of a bucket makes room. Words are read and written
    whole and without locks: two workers in one bucket may lose a word, never tear one. What is found is a
    hint: the slot may have another server by now, or its cache may have forgotten.
    """

    def __cinit__(self, Py_ssize_t buckets=65536):
        if buckets < 1 or buckets & (buckets - 1):
            raise ValueError(f"{buckets} buckets are not a power of two")
        PyObject_GetBuffer(mmap(-1, buckets * WAYS * sizeof(uint64_t)), &self._view, PyBUF_WRITABLE)
        self._words = <uint64_t *>self._view.buf
        self._mask = <uint64_t>(buckets - 1)

    def __dealloc__(self):
        if self._view.buf != NULL:
            PyBuffer_Release(&self._view)

    cdef int32_t find(self, uint64_t hash, int32_t *slots) noexcept:
        """How many slots it wrote, the newest first: WAYS at most."""
        cdef uint64_t *bucket = self._words + (hash & self._mask) * WAYS
        cdef uint64_t word
        cdef int32_t i, found = 0
        for i in range(WAYS):
            word = load_word(bucket + i)
            if word == 0:
                break
            if word >> SLOT_BITS == hash >> SLOT_BITS:
                slots[found] = <int32_t>(word & ((1 << SLOT_BITS) - 1)) - 1
                found += 1
        return found

    cdef void put(self, uint64_t hash, int32_t slot) noexcept:
        cdef uint64_t *bucket = self._words + (hash & self._mask) * WAYS
        cdef uint64_t word = (hash >> SLOT_BITS << SLOT_BITS) | <uint64_t>(slot + 1)
        cdef int32_t last = 0, i
        while last < WAYS - 1 and load_word(bucket + last) != word and load_word(bucket + last) != 0:
            last += 1
        if load_word(bucket + last) != word and load_word(bucket + last) != 0:
            self.evicted += 1
        for i in range(last, 0, -1):
            store_word(bucket + i, load_word(bucket + i - 1))
        if load_word(bucket) != word:
            store_word(bucket, word)

    def holders(self, uint64_t hash):
        """The slots that were sent it, the newest first."""
        cdef int32_t slots[WAYS]
        cdef int32_t i
        return [slots[i] for i in range(self.find(hash, slots))]

    def note(self, uint64_t hash, int32_t slot):
        """`slot` is sent it now."""
        if not 0 <= slot < (1 << SLOT_BITS) - 1:
            raise ValueError(f"slot {slot} is more than a word can hold")
        self.put(hash, slot)
