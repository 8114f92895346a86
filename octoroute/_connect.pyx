"""Begins TCP connections. A socket object is not made: it costs more than the four system calls."""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINPROGRESS, EINTR, errno
from libc.string cimport memset

cdef extern from "<netdb.h>" nogil:
    struct sockaddr:
        unsigned short sa_family
    struct addrinfo:
        int ai_flags
        int ai_family
        int ai_socktype
        unsigned int ai_addrlen
        sockaddr *ai_addr
    int AI_NUMERICHOST
    int AI_NUMERICSERV
    int getaddrinfo(const char *host, const char *port, const addrinfo *hints, addrinfo **found)
    void freeaddrinfo(addrinfo *found)

cdef extern from "<netinet/tcp.h>" nogil:
    int IPPROTO_TCP
    int TCP_NODELAY

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    int SOCK_STREAM
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC
    int SOL_SOCKET
    int SO_ERROR
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int c_socket "socket"(int family, int kind, int protocol)
    int c_connect "connect"(int fd, const sockaddr *address, unsigned int length)
    int setsockopt(int fd, int level, int option, const void *value, unsigned int length)
    int getsockopt(int fd, int level, int option, void *value, unsigned int *length)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)

cdef enum:
    PIECES = 8               # that are sent at once; the others follow


def numeric_address(str host, int port):
    """The struct sockaddr of an IPv4 or IPv6 address and a port; None where `host` is none."""
    cdef addrinfo hints
    cdef addrinfo *found = NULL
    cdef bytes name = host.encode(), number = b"%d" % port
    memset(&hints, 0, sizeof(hints))
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV
    hints.ai_socktype = SOCK_STREAM
    if getaddrinfo(name, number, &hints, &found) != 0 or found == NULL:
        return None
    address = PyBytes_FromStringAndSize(<char*> found.ai_addr, found.ai_addrlen)
    freeaddrinfo(found)
    return address


cpdef int begin_connection(bytes address) except -1:
    """The descriptor of a socket that connects, or has connected already. Raises OSError."""
    cdef const sockaddr *where = <const sockaddr*> PyBytes_AS_STRING(address)
    cdef int on = 1, problem
    cdef int fd = c_socket(where.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        raise OSError(errno, os.strerror(errno))
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
    if c_connect(fd, where, len(address)) != 0 and errno != EINPROGRESS:
        problem = errno
        c_close(fd)
        raise OSError(problem, os.strerror(problem))
    return fd


cpdef check_connection(int fd):
    """For a socket that can be written to: raises OSError where it could not connect."""
    cdef int problem = 0
    cdef unsigned int length = sizeof(problem)
    if getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &length) != 0:
        problem = errno
    if problem:
        raise OSError(problem, os.strerror(problem))


cpdef Py_ssize_t send_first(int fd, tuple pieces) except -2:
    """Bytes of the pieces that the socket took; -1: it takes none yet. Raises OSError."""
    cdef Py_buffer[PIECES] views
    cdef iovec[PIECES] parts
    cdef msghdr message
    cdef Py_ssize_t sent
    cdef int count = 0, i
    memset(&message, 0, sizeof(message))
    try:
        for piece in pieces[:PIECES]:
            PyObject_GetBuffer(piece, &views[count], PyBUF_SIMPLE)
            parts[count].iov_base = views[count].buf
            parts[count].iov_len = views[count].len
            count += 1
        message.msg_iov = parts
        message.msg_iovlen = count
        sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
    finally:
        for i in range(count):
            PyBuffer_Release(&views[i])
    if sent >= 0:
        return sent
    if errno == EAGAIN or errno == EINTR:
        return -1
    raise OSError(errno, os.strerror(errno))
