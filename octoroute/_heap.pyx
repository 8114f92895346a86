"""How much freed memory the C library keeps for the next request. A core, because nothing else can ask it."""

cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    static int keep(int bytes) {
        return mallopt(M_MMAP_THRESHOLD, bytes) && mallopt(M_TRIM_THRESHOLD, bytes);
    }
    #else
    static int keep(int bytes) { (void)bytes; return 0; }
    #endif
    """
    int keep(int bytes)


def keep_freed(int size):
    """Keeps up to `size` bytes at the end of the heap; what is larger by itself is given back at once.
    Whether the C library can be told so (glibc can).
    """
    return bool(keep(size))
