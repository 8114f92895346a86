cpdef int begin_connection(bytes address) except -1
cpdef check_connection(int fd)
cpdef Py_ssize_t send_first(int fd, tuple pieces) except -2
