from octoroute._request cimport Body, RequestHead
from octoroute.server.downstream cimport Downstream
from octoroute.server.pipeline cimport ActiveRequest
from octoroute.server.wire cimport ClientWire


cdef class Entrance:
    cdef object _gateway
    cdef object _ordinary

    cpdef enter(self, ClientWire wire, RequestHead head, Py_ssize_t read)


cdef class Express:
    cdef ClientWire _wire
    cdef RequestHead _head
    cdef object _gateway
    cdef object _visit
    cdef Body _body
    cdef object _reader
    cdef bytes _ahead
    cdef ActiveRequest _active
    cdef Downstream _client
    cdef public double since

    cpdef feed(self, bytes data, Py_ssize_t at=*)
    cpdef _complete(self, Body body)
    cdef _begin(self, bytes body)
    cpdef _done(self, error)
    cdef _refuse(self, error, str request_id)
    cdef _abandon(self)
    cdef _end(self, bint keep)
