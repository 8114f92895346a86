from octoroute.exchange cimport RequestView


cdef class RequestWriter:
    cdef bytes _path
    cdef bytes _fixed
    cdef bytes _base
    cdef dict _heads
    cdef object _splicer

    cpdef tuple pieces(self, RequestView view, bint ask_usage=*, bint as_stream=*)
    cdef bytes _head(self, str path)
