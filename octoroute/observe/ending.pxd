cpdef str ending(int status, str result)
