from octoroute.upstream.pool cimport Pool
from octoroute.upstream.request cimport RequestWriter


cdef class Site:
    cdef readonly RequestWriter writer
    cdef readonly Pool pool
    cdef readonly bytes why
    cdef readonly object usage
    cdef readonly object plain
