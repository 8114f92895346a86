"""The asyncio transport of a TCP or Unix socket that is read and written here, not by the event loop: reading
a chunk and writing it costs two system calls and little else.

For protocols it is a transport like any other. What is written goes out at once, and waits here only if the
socket has no room.
"""

import asyncio
import os
import socket

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, errno

from octoroute._poller cimport EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, Poller, Watched

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT
    int MSG_MORE
    int MSG_NOSIGNAL
    int SHUT_WR
    ssize_t c_recv "recv"(int fd, void *buffer, size_t length, int flags)
    ssize_t c_send "send"(int fd, const void *data, size_t length, int flags)
    int c_shutdown "shutdown"(int fd, int how)

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)

cdef enum:
    READ_BYTES = 65536
    READS = 4                # of one socket before others have their turn

cdef Py_ssize_t HIGH_WATER = 65536         # bytes that wait: the protocol is asked to pause, as by asyncio
cdef Py_ssize_t LOW_WATER = 16384
cdef Py_ssize_t FEW_BYTES = 16384          # that are cheaper to copy together than to write one by one
# Reads are copied from here; nothing is kept between two.
cdef unsigned char[READ_BYTES] inbox


cdef class Receiver:
    """A protocol whose `data_received` is compiled."""

    cpdef data_received(self, bytes data):
        """Bytes came."""


cdef class SocketTransport(Watched):
    """`start` it. Takes over the descriptor of a connected socket that does not block, and closes it."""

    def __init__(self, Poller poller, int fd, leave=None):
        self.poller = poller
        self.fd = fd
        self.leave = leave
        self.waiting = []
        self.reading = True

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)

    def __repr__(self):
        return f"<SocketTransport fd={self.fd}{' closing' if self.closing else ''}>"

    def start(self, protocol):
        """Calls the protocol's connection_made. Raises OSError if the socket can't be watched."""
        self.poller.watch(self, self.interest())
        self.set_protocol(protocol)
        protocol.connection_made(self)

    def set_protocol(self, protocol):
        self.protocol = protocol
        self.receiver = protocol if isinstance(protocol, Receiver) else None
        self.buffered = self.receiver is None and isinstance(protocol, asyncio.BufferedProtocol)

    def get_extra_info(self, name, default=None):
        if self.fd < 0 or name not in ("socket", "peername", "sockname"):
            return default
        try:
            if self.sock is None:
                self.sock = socket.socket(fileno=os.dup(self.fd))
            if name == "socket":
                return self.sock
            return self.sock.getpeername() if name == "peername" else self.sock.getsockname()
        except OSError:
            # The peer is gone, or no descriptor is free.
            return default

    def fileno(self):
        return self.fd

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        if self.reading and not self.closing:
            self.reading = False
            self.rewatch()

    def resume_reading(self):
        if not self.reading and not self.closing and not self.heard_all:
            self.reading = True
            self.rewatch()

    def get_write_buffer_size(self):
        return self.waiting_bytes

    def write(self, data):
        cdef Py_buffer view
        cdef Py_ssize_t sent
        if type(data) is bytes:
            self.put(data)
            return
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            sent = self.send_now(<char*> view.buf, view.len)
            if sent < view.len:
                # The caller may release a memoryview, and change what is no bytes.
                fixed = type(data) is memoryview and type(data.obj) is bytes
                self.wait_for(memoryview(data) if fixed else bytes(data), view.len, sent)
        finally:
            PyBuffer_Release(&view)

    def writelines(self, list_of_data):
        # Behind an empty piece, which is not sent, the socket would keep back what came with MSG_MORE.
        cdef list full = [piece for piece in list_of_data if len(piece)]
        cdef Py_ssize_t total = 0, left = len(full)
        for piece in full:
            total += len(piece)
        if total <= FEW_BYTES:
            self.put(b"".join(full))
            return
        try:
            for piece in full:
                left -= 1
                self.more = MSG_MORE if left else 0
                self.write(piece)
        finally:
            self.more = 0

    def can_write_eof(self):
        return True

    def write_eof(self):
        if self.closing or self.eof_due:
            return
        self.eof_due = True
        if not self.waiting_bytes:
            self.all_written()

    def close(self):
        """What waits is written first."""
        if self.closing:
            return
        self.closing = True
        if self.waiting_bytes and not self.mute:
            self.rewatch()
        else:
            self.end(None)

    def abort(self):
        """What waits is dropped."""
        self.end(None)

    def __call__(self, bytes data):
        self.put(data)

    cdef put(self, bytes data):
        cdef Py_ssize_t n = len(data), sent = self.send_now(PyBytes_AS_STRING(data), n)
        if sent < n:
            self.wait_for(data, n, sent)

    cdef Py_ssize_t send_now(self, const char *data, Py_ssize_t n):
        """How much was written; all of it where nothing need be written any more."""
        if self.closing or self.mute or self.eof_due or n == 0:
            return n
        return 0 if self.waiting_bytes else self.send(data, n)

    cdef Py_ssize_t send(self, const char *data, Py_ssize_t n):
        """How much the socket took; all of it where it never takes any more."""
        cdef Py_ssize_t sent = c_send(self.fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL | self.more)
        if sent >= 0:
            return sent
        if errno == EAGAIN or errno == EINTR:
            return 0
        # The other side is gone, or will not read. What it said before that can still be read, and its end.
        self.mute = True
        self.waiting_bytes = 0
        if not self.reading:
            self.end(OSError(errno, os.strerror(errno)))
        return n

    cdef wait_for(self, data, Py_ssize_t n, Py_ssize_t sent):
        cdef bint first = self.waiting_bytes == 0
        self.waiting.append(data)
        self.waiting_bytes += n - sent
        if first:
            self.offset = sent
            self.rewatch()
        if self.waiting_bytes > HIGH_WATER and not self.told:
            self.told = True
            self.tell(True)

    cdef flush(self):
        """Writes of what waits as much as the socket takes."""
        cdef Py_buffer view
        cdef Py_ssize_t sent, rest
        while self.waiting_bytes:
            PyObject_GetBuffer(self.waiting[0], &view, PyBUF_SIMPLE)
            rest = view.len - self.offset
            sent = self.send(<char*> view.buf + self.offset, rest)
            PyBuffer_Release(&view)
            if self.mute:
                self.waiting.clear()
                break
            self.waiting_bytes -= sent
            self.offset += sent
            if sent < rest:
                break
            del self.waiting[0]
            self.offset = 0
        if self.told and self.waiting_bytes <= LOW_WATER and not self.ended:
            self.told = False
            self.tell(False)
        if not self.waiting_bytes and not self.ended:
            self.all_written()

    cdef all_written(self):
        if self.closing:
            self.end(None)
            return
        if self.eof_due:
            c_shutdown(self.fd, SHUT_WR)
        self.rewatch()

    cdef unsigned int interest(self):
        cdef unsigned int events = EPOLLET
        if self.reading and not self.closing:
            events |= EPOLLIN | EPOLLRDHUP
        if self.waiting_bytes:
            events |= EPOLLOUT
        return events

    cdef rewatch(self):
        if not self.ended:
            self.poller.rewatch(self, self.interest())

    # Reading.

    cdef ready(self, unsigned int events):
        if self.waiting_bytes and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            self.flush()
        if not self.closing and self.reading:
            self.receive(events)

    cdef receive(self, unsigned int events):
        cdef Py_ssize_t size
        cdef int _times
        # Where the end, or an error, has come too, nothing more would be heard of it.
        cdef bint more = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) != 0
        for _times in range(READS):
            try:
                size = self.read_once()
            except (Exception, asyncio.CancelledError) as error:
                self.crash(error, "a protocol failed to take what came")
                return
            if size < 0 or self.closing or not self.reading:
                return
            if not (self.full or more):
                return
        self.rewatch()

    cdef Py_ssize_t read_once(self) except -2:
        """Bytes that were read and passed on, `full` if there was no room for more; -1: nothing for now."""
        cdef Py_buffer view
        cdef Py_ssize_t size
        cdef Receiver receiver = self.receiver      # which it may leave while it is called
        if self.buffered:
            PyObject_GetBuffer(self.protocol.get_buffer(-1), &view, PyBUF_WRITABLE)
            size = c_recv(self.fd, view.buf, view.len, MSG_DONTWAIT)
            self.full = size == view.len
            PyBuffer_Release(&view)
        else:
            size = c_recv(self.fd, inbox, READ_BYTES, MSG_DONTWAIT)
            self.full = size == READ_BYTES
        if size < 0:
            if errno != EAGAIN and errno != EINTR:
                self.end(OSError(errno, os.strerror(errno)))
            return -1
        if size == 0:
            if self.full:
                raise BufferError("a protocol gave a buffer without room")
            self.take_end()
            return -1
        if receiver is not None:
            receiver.data_received(PyBytes_FromStringAndSize(<char*> inbox, size))
        elif self.buffered:
            self.protocol.buffer_updated(size)
        else:
            self.protocol.data_received(PyBytes_FromStringAndSize(<char*> inbox, size))
        return size

    cdef take_end(self):
        self.reading = False
        self.heard_all = True
        if not self.protocol.eof_received() or self.mute:
            self.close()

    cdef tell(self, bint pause):
        try:
            if pause:
                self.protocol.pause_writing()
            else:
                self.protocol.resume_writing()
        except (Exception, asyncio.CancelledError) as error:
            self.crash(error, "a protocol failed to pause or to go on")

    cdef crash(self, error, str what):
        self.poller.loop.call_exception_handler(
            {"message": what, "exception": error, "transport": self, "protocol": self.protocol}
        )
        self.end(error if isinstance(error, OSError) else None)

    cdef end(self, error):
        """The protocol hears of it when whoever called has returned."""
        if self.ended:
            return
        self.ended = self.closing = True
        self.reading = False
        self.waiting.clear()
        self.waiting_bytes = 0
        self.poller.forget(self)
        self.poller.loop.call_soon(self._lost, error)

    def _lost(self, error):
        try:
            if self.protocol is not None:
                self.protocol.connection_lost(error)
        finally:
            if self.sock is not None:
                self.sock.close()
                self.sock = None
            c_close(self.fd)
            self.fd = -1
            self.protocol = self.receiver = None
            leave, self.leave = self.leave, None
            if leave is not None:
                leave()
