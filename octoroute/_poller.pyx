"""Tells which of many sockets have something to do: for each of them the event loop would take the
interpreter's lock and call through several layers.

An epoll instance, which the event loop watches as if it were one socket; what is ready is served in one go.
"""

import asyncio
import os

from libc.errno cimport errno

cdef extern from "<sys/epoll.h>" nogil:
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    int EPOLL_CTL_MOD
    int EPOLL_CTL_DEL
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)

cdef enum:
    BATCH = 128              # sockets between two turns of the event loop


cdef class Watched:
    """Has a socket, and is told when that is `ready`."""

    def __cinit__(self):
        self.fd = -1

    cdef ready(self, unsigned int events):
        """Something of what was asked for, or EPOLLERR, EPOLLHUP."""


cdef class Poller:
    """One per event loop, for what is made inside it."""

    def __cinit__(self):
        self.epoll = -1
        self.watched = []

    cdef watch(self, Watched one, unsigned int events):
        """From here `one` is told, until it is forgotten. Raises OSError."""
        cdef epoll_event event
        if self.epoll < 0:
            self.open()
        event.events = events
        event.data.fd = one.fd
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, one.fd, &event) != 0:
            raise OSError(errno, os.strerror(errno))
        while len(self.watched) <= one.fd:
            self.watched.append(None)
        self.watched[one.fd] = one

    cdef rewatch(self, Watched one, unsigned int events):
        """It is told of other events, and of those that are there already."""
        cdef epoll_event event
        event.events = events
        event.data.fd = one.fd
        epoll_ctl(self.epoll, EPOLL_CTL_MOD, one.fd, &event)

    cdef forget(self, Watched one):
        """It is told nothing any more. To be called before its socket is closed."""
        cdef epoll_event event
        if one.fd < len(self.watched) and self.watched[one.fd] is one:
            self.watched[one.fd] = None
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, one.fd, &event)

    cdef open(self):
        self.loop = asyncio.get_running_loop()
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, os.strerror(errno))
        self.loop.add_reader(self.epoll, self.serve)

    def close(self):
        """Forgets all. To be called inside the event loop."""
        cdef object one
        for one in self.watched:
            if one is not None:
                self.forget(one)
        if self.epoll >= 0:
            self.loop.remove_reader(self.epoll)
            os.close(self.epoll)
            self.epoll = -1

    def serve(self):
        """For the event loop: something is ready."""
        cdef epoll_event[BATCH] events
        cdef int count = epoll_wait(self.epoll, events, BATCH, 0), i
        cdef Watched one
        for i in range(count):
            # It may have been forgotten while others were served. Another that has its number since then
            # looks once in vain.
            one = self.watched[events[i].data.fd]
            if one is None:
                continue
            try:
                one.ready(events[i].events)
            except Exception as error:
                # The others must hear of theirs: they are not told twice.
                self.loop.call_exception_handler({"message": "serving a socket failed", "exception": error})
