"""Writes to a socket that a transport owns: straight into it while the transport holds nothing back, which is
nearly always, and by the transport otherwise. A transport's own write costs as much as all else that is done
with a chunk of a stream.

Knows sockets and bytes only. Whoever made it has to `forget` the socket before the transport closes it:
another connection could get the same number.
"""

from cpython.bytes cimport PyBytes_AS_STRING

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    ssize_t send(int fd, const void *data, size_t length, int flags)


cdef class Sender:
    """A call writes. `waiting` has to be set after the transport was written to by others."""

    def __init__(self, transport, int fd):
        self.transport = transport
        self.fd = fd
        self.waiting = True

    def __call__(self, bytes data):
        self.put(data)

    cpdef forget(self):
        """From here everything goes by the transport."""
        self.fd = -1

    cdef put(self, bytes data):
        cdef Py_ssize_t n = len(data), sent
        if self.waiting and self.fd >= 0:
            self.waiting = self.transport.get_write_buffer_size() > 0 or self.transport.is_closing()
        if self.waiting or self.fd < 0:
            self.transport.write(data)
            return
        sent = send(self.fd, PyBytes_AS_STRING(data), n, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent == n:
            return
        # The rest waits there for room in the socket; an error is met there again, and told.
        self.waiting = True
        self.transport.write(data[sent:] if sent > 0 else data)
