from octoroute._poller cimport Poller, Watched


cdef class Listener(Watched):
    cdef Poller poller
    cdef object sock
    cdef object factory
    cdef object all_over         # future: closed, and the last connection has ended
    cdef Py_ssize_t connections
    cdef bint closed

    cdef begin(self, int fd)
