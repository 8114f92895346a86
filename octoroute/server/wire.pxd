from octoroute._request cimport RequestHead
from octoroute._transport cimport Receiver
from octoroute.upstream.connection cimport Connection

cimport cython


cdef class ClientWire(Receiver):
    cdef public object host
    cdef public object transport
    cdef public object express
    cdef public Connection feed
    cdef public bint busy
    cdef public double head_since
    cdef public Py_ssize_t head_bytes
    cdef public bint large
    cdef public bint last
    cdef public bint writing_paused
    cdef public object tenant
    cdef public double idle_since
    cdef public Py_ssize_t idle_requests
    cdef Py_ssize_t _unsent
    cdef Py_ssize_t _ordinary
    cdef object _reader
    cdef object _gone

    @cython.locals(head=RequestHead)
    cpdef data_received(self, bytes data)
    cdef _read_by_aiohttp(self, bytes data)
