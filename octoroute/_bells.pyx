"""Wakes the workers in which requests wait for a place, when another one gives a place back.

Owns: an eventfd for each worker, made before the fork so that all have all of them, and the flags of those
that wait, in shared memory. Who gives a place back looks at one number, as long as nobody waits.
"""

from mmap import mmap

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport errno
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from octoroute._robust cimport load8, load32, store8

cdef extern from *:
    """
    #include <sys/eventfd.h>
    #include <unistd.h>
    #define octo_eventfd() eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    #define octo_add(to, amount) __atomic_add_fetch((to), (amount), __ATOMIC_SEQ_CST)
    #define octo_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    """
    int eventfd "octo_eventfd"() noexcept
    uint32_t add32 "octo_add"(uint32_t *to, int32_t amount) noexcept
    void fence "octo_fence"() noexcept
    long write(int descriptor, const void *data, size_t size) noexcept
    int close(int descriptor) noexcept

# A queue is a bit of a byte.
cdef enum:
    QUEUES = 8


@cython.final
@cython.no_gc                    # it refers to memory only
cdef class Bells:
    """For `workers` processes; with one worker there is nobody to wake, and nothing is made."""

    def __cinit__(self, int32_t workers):
        cdef int32_t worker
        if workers < 1:
            raise ValueError("a fleet has at least one worker")
        memory = mmap(-1, sizeof(uint32_t) + workers)
        PyObject_GetBuffer(memory, &self._view, PyBUF_WRITABLE)
        self._anybody = <uint32_t *>self._view.buf
        self._waits = <uint8_t *>(self._anybody + 1)
        self._descriptor = <int *>malloc(workers * sizeof(int))
        if self._descriptor == NULL:
            raise MemoryError()
        self.workers = workers
        for worker in range(workers):
            self._descriptor[worker] = -1
        for worker in range(workers if workers > 1 else 0):
            self._descriptor[worker] = eventfd()
            if self._descriptor[worker] < 0:
                raise OSError(errno, "no eventfd can be made")

    def __dealloc__(self):
        cdef int32_t worker
        if self._descriptor != NULL:
            for worker in range(self.workers):
                if self._descriptor[worker] >= 0:
                    close(self._descriptor[worker])
            free(self._descriptor)
        if self._view.buf != NULL:
            PyBuffer_Release(&self._view)

    cdef int32_t _checked(self, int32_t worker, int32_t queue=0) except -1:
        if not 0 <= worker < self.workers:
            raise ValueError(f"worker {worker} of {self.workers}")
        if not 0 <= queue < QUEUES:
            raise ValueError(f"queue {queue} of {QUEUES}")
        return worker

    def descriptor(self, int32_t worker):
        """What becomes readable when that worker is rung for; -1 where it never is."""
        return self._descriptor[self._checked(worker)]

    def wait(self, int32_t worker, int32_t queue, bint waits):
        """Whether somebody waits in a queue of that worker. Whoever begins to wait looks for a place after
        this: one that was given back before is not rung for.
        """
        cdef uint8_t before, after
        self._checked(worker, queue)
        if self.workers == 1:
            return
        before = self._waits[worker]
        after = before | (1 << queue) if waits else before & ~(1 << queue)
        # A death in between leaves the number too high, never too low.
        if after and not before:
            add32(self._anybody, 1)
        store8(&self._waits[worker], after)
        if before and not after:
            add32(self._anybody, -1)
        fence()

    def others_wait(self, int32_t worker, int32_t queue):
        """Whether somebody waits in that queue of another worker."""
        cdef int32_t other
        self._checked(worker, queue)
        if load32(self._anybody) == 0:
            return False
        for other in range(self.workers):
            if other != worker and load8(&self._waits[other]) & (1 << queue):
                return True
        return False

    def reclaim(self, int32_t worker):
        """After a worker's end: nobody waits there."""
        if self._waits[self._checked(worker)]:
            store8(&self._waits[worker], 0)
            add32(self._anybody, -1)

    cdef bint anybody(self) noexcept:
        """Whether any worker waits, to be asked after a place was given back."""
        fence()
        return load32(self._anybody) > 0

    cdef void ring(self, int32_t but) noexcept:
        """For all that wait, but for one: it knows."""
        cdef uint64_t one = 1
        cdef int32_t worker
        for worker in range(self.workers):
            if worker != but and load8(&self._waits[worker]):
                # It can only fail where the bell has been rung 2^64 times and not heard.
                write(self._descriptor[worker], &one, sizeof(one))
