cdef class TurningPoints:
    pass
