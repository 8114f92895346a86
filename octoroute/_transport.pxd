from octoroute._poller cimport Poller, Watched


cdef class Receiver:
    cpdef data_received(self, bytes data)


cdef class SocketTransport(Watched):
    cdef Poller poller
    cdef object protocol
    cdef Receiver receiver       # the protocol, if it is one
    cdef bint buffered           # the protocol says where bytes go
    cdef object leave            # called when it is over, if anybody wants that
    cdef object sock             # for those who ask for one: a socket object with a descriptor of its own
    cdef bint reading
    cdef bint heard_all          # the other side has ended
    cdef bint closing            # nothing is read any more, and nothing taken to be written
    cdef bint ended              # connection_lost is on its way
    cdef bint mute               # the other side takes nothing any more
    cdef bint eof_due            # when all is written, our end
    cdef bint told               # the protocol was asked to pause
    cdef bint full               # the last read took all that it could
    cdef int more                # MSG_MORE while there is more to be written in the same breath
    cdef list waiting            # what could not be written yet: bytes and memoryviews
    cdef Py_ssize_t offset       # of the first of them, how much is written
    cdef Py_ssize_t waiting_bytes

    cdef put(self, bytes data)
    cdef Py_ssize_t send_now(self, const char *data, Py_ssize_t n)
    cdef Py_ssize_t send(self, const char *data, Py_ssize_t n)
    cdef wait_for(self, data, Py_ssize_t n, Py_ssize_t sent)
    cdef unsigned int interest(self)
    cdef rewatch(self)
    cdef flush(self)
    cdef all_written(self)
    cdef receive(self, unsigned int events)
    cdef Py_ssize_t read_once(self) except -2
    cdef take_end(self)
    cdef tell(self, bint pause)
    cdef crash(self, error, str what)
    cdef end(self, error)
