"""What several processes may do to the same memory: robust mutexes, and reads and writes that are whole.

Inline C. The kernel frees a robust mutex when its holder dies, and the next to lock it is told.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <stdint.h>

    static inline int octo_mutex_init(pthread_mutex_t *mutex) {
        pthread_mutexattr_t attributes;
        int failed = pthread_mutexattr_init(&attributes);
        if (failed)
            return failed;
        failed = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        if (!failed)
            failed = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        if (!failed)
            failed = pthread_mutex_init(mutex, &attributes);
        pthread_mutexattr_destroy(&attributes);
        return failed;
    }

    /* 1 where the last holder died inside: the caller repairs what the mutex guards. */
    static inline int octo_lock(pthread_mutex_t *mutex) {
        if (__builtin_expect(pthread_mutex_lock(mutex) == EOWNERDEAD, 0)) {
            pthread_mutex_consistent(mutex);
            return 1;
        }
        return 0;
    }

    static inline double octo_load_double(const double *from) {
        double value;
        __atomic_load(from, &value, __ATOMIC_ACQUIRE);
        return value;
    }

    static inline void octo_store_double(double *to, double value) {
        __atomic_store(to, &value, __ATOMIC_RELEASE);
    }

    #define octo_load(from) __atomic_load_n((from), __ATOMIC_ACQUIRE)
    #define octo_store(to, value) __atomic_store_n((to), (value), __ATOMIC_RELEASE)
    #define octo_bump(to) __atomic_add_fetch((to), 1, __ATOMIC_ACQ_REL)
    """
    ctypedef struct pthread_mutex_t:
        pass
    int init_mutex "octo_mutex_init"(pthread_mutex_t *mutex) noexcept
    int lock "octo_lock"(pthread_mutex_t *mutex) noexcept
    int unlock "pthread_mutex_unlock"(pthread_mutex_t *mutex) noexcept
    uint8_t load8 "octo_load"(const uint8_t *value) noexcept
    uint32_t load32 "octo_load"(const uint32_t *value) noexcept
    uint64_t load64 "octo_load"(const uint64_t *value) noexcept
    void store8 "octo_store"(uint8_t *to, uint8_t value) noexcept
    void store32 "octo_store"(uint32_t *to, uint32_t value) noexcept
    double load_double "octo_load_double"(const double *value) noexcept
    void store_double "octo_store_double"(double *to, double value) noexcept
    uint64_t bump "octo_bump"(uint64_t *value) noexcept
