"""xoshiro256++ 1.0 (D. Blackman and S. Vigna 2019) and splitmix64, which spreads a small seed over its state.

Inline C for the cores that draw: no state of its own, so a core keeps its four words where it wants them.
"""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>

    static inline uint64_t octo_rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

    static inline uint64_t octo_xoshiro(uint64_t *s) {
        uint64_t word = octo_rotl(s[0] + s[3], 23) + s[0];
        uint64_t t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = octo_rotl(s[3], 45);
        return word;
    }

    static inline uint64_t octo_splitmix(uint64_t *x) {
        uint64_t z = (*x += 0x9e3779b97f4a7c15ULL);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31);
    }

    /* word x n as 128 bits: the high half is uniform in [0, n), the low half uniform given the high. */
    static inline uint64_t octo_spread(uint64_t word, uint64_t n, uint64_t *inside) {
        unsigned __int128 product = (unsigned __int128)word * n;
        *inside = (uint64_t)product;
        return (uint64_t)(product >> 64);
    }
    """
    uint64_t xoshiro "octo_xoshiro"(uint64_t *state) noexcept
    uint64_t splitmix "octo_splitmix"(uint64_t *state) noexcept
    uint64_t spread "octo_spread"(uint64_t word, uint64_t n, uint64_t *inside) noexcept
