"""One alias table (A. J. Walker 1977), built in O(n) as in M. D. Vose, IEEE Trans. Software Eng. 17(9), 1991.

Inline C over memory of the caller's. A throw takes a uniform column and a uniform 64-bit word inside it.
"""

from libc.stdint cimport int32_t, uint64_t


cdef struct Column:
    uint64_t threshold           # a word below it: `own`, else `alias`
    int32_t own
    int32_t alias


cdef inline void fill_table(Column *columns, int32_t n, double *weights, int32_t *stack) noexcept:
    """From `own` and the weight of each column. `weights` is used up; `stack` is scratch of n entries.

    Weights must be finite and positive. They are divided by the largest before they are summed: a sum may be
    beyond the largest double. Columns below 1 are stacked from the left, the others from the right.
    """
    cdef int32_t i, giver, small = 0, large = n
    cdef double largest = 0.0, total = 0.0
    for i in range(n):
        largest = max(largest, weights[i])
    for i in range(n):
        weights[i] /= largest
        total += weights[i]
    for i in range(n):
        weights[i] *= n / total
        columns[i].alias = columns[i].own
        columns[i].threshold = <uint64_t>-1
        if weights[i] < 1.0:
            stack[small] = i
            small += 1
        else:
            large -= 1
            stack[large] = i
    while small > 0 and large < n:
        small -= 1
        i = stack[small]
        giver = stack[large]
        columns[i].threshold = <uint64_t>(weights[i] * 18446744073709551616.0)
        columns[i].alias = columns[giver].own
        weights[giver] = (weights[giver] + weights[i]) - 1.0
        if weights[giver] < 1.0:
            large += 1
            stack[small] = giver
            small += 1
    # What is left on either stack is 1 but for rounding, and keeps its own endpoint.
