"""Accepts the connections of one listening socket."""

import asyncio
import os
import socket

from libc.errno cimport ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno

from octoroute._poller cimport EPOLLIN, Poller, Watched
from octoroute._transport cimport SocketTransport

cdef extern from "<sys/socket.h>" nogil:
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC
    int accept4(int fd, void *address, void *length, int flags)

cdef enum:
    AT_ONCE = 16             # others share the queue, and want their turn

# After a connection could not be taken for want of descriptors or memory, which is logged: asyncio's time.
cdef double RETRY_SECONDS = 1.0


cdef class Listener(Watched):
    """As asyncio.Server: each connection gets a protocol made by `factory`. For a socket that listens, which
    it closes in the end.
    """

    def __init__(self, Poller poller, sock, factory):
        self.poller = poller
        self.sock = sock
        self.factory = factory
        self.all_over = asyncio.get_running_loop().create_future()
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            # Its connections inherit that.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = sock.fileno()
        poller.watch(self, EPOLLIN)

    def close(self):
        """No more connections; those that are there go on."""
        if self.closed:
            return
        self.closed = True
        self.poller.forget(self)
        self.fd = -1
        self.sock.close()
        self.look()

    def wait_closed(self):
        """An awaitable: until it is closed and its last connection has ended."""
        return asyncio.shield(self.all_over)

    cdef ready(self, unsigned int events):
        cdef int fd
        for _ in range(AT_ONCE):
            fd = accept4(self.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                self.begin(fd)
            elif errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                self.poller.loop.call_exception_handler(
                    {
                        "message": "a connection could not be accepted",
                        "exception": OSError(errno, os.strerror(errno)),
                        "socket": self.sock,
                    }
                )
                self.poller.rewatch(self, 0)
                self.poller.loop.call_later(RETRY_SECONDS, self.go_on)
                return
            elif errno != EINTR and errno != ECONNABORTED:
                return
            if self.closed:
                return

    def go_on(self):
        """Connections are taken again."""
        if not self.closed:
            self.poller.rewatch(self, EPOLLIN)

    cdef begin(self, int fd):
        cdef SocketTransport transport = SocketTransport(self.poller, fd, self.left)
        self.connections += 1
        try:
            transport.start(self.factory())
        except (Exception, asyncio.CancelledError) as error:
            self.poller.loop.call_exception_handler(
                {"message": "a connection could not be begun", "exception": error, "transport": transport}
            )
            transport.abort()

    def left(self):
        """A connection has ended."""
        self.connections -= 1
        self.look()

    def look(self):
        """Whether all is over."""
        if self.closed and not self.connections and not self.all_over.done():
            self.all_over.set_result(None)
