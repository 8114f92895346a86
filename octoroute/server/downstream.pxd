from octoroute._http1 cimport Head
from octoroute._relay cimport Relay
from octoroute.server.wire cimport ClientWire
from octoroute.upstream.answer cimport Answer
from octoroute.upstream.connection cimport Connection
from octoroute.upstream.outbox cimport Outbox


cdef class Downstream:
    cdef ClientWire _wire
    cdef object _transport
    cdef Outbox _outbox
    cdef bint _http11
    cdef bint _chunked
    cdef bint _recoded
    cdef bint _encoded
    cdef public str request_id
    cdef public bint keep_alive
    cdef public bint started
    cdef public bytes why

    cpdef attach(self, Connection connection)
    cpdef start(self, Head head, Relay relay)
    cdef bytes _head(self, int status, bytes reason, bytes lines, Head head)
    cdef bytes _lines(self, int status, bytes reason, bytes lines, bytes framing)
    cpdef send_whole(self, Answer answer)


cdef class MessagesDownstream(Downstream):
    pass
