cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    unsigned int EPOLLIN
    unsigned int EPOLLOUT
    unsigned int EPOLLRDHUP
    unsigned int EPOLLHUP
    unsigned int EPOLLERR
    unsigned int EPOLLET


cdef class Watched:
    cdef int fd                  # -1: closed

    cdef ready(self, unsigned int events)


cdef class Poller:
    cdef readonly object loop    # that serves it; None until something is watched
    cdef int epoll
    cdef list watched            # by descriptor

    cdef watch(self, Watched one, unsigned int events)
    cdef rewatch(self, Watched one, unsigned int events)
    cdef forget(self, Watched one)
    cdef open(self)
