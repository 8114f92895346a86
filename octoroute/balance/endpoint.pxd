cdef class EndpointSpec:
    cdef readonly str tier
    cdef readonly str name
    cdef readonly str base_url
    cdef readonly str model
    cdef readonly long long max_tokens
    cdef readonly double temperature
    cdef readonly double weight
    cdef readonly long long priority
    cdef readonly str kind
    cdef readonly str api_key
    cdef readonly long long max_in_flight
    cdef readonly bint tls_verify
    cdef readonly str tls_server_name


cdef class Endpoint:
    cdef readonly EndpointSpec spec
    cdef readonly object state
    cdef readonly int slot
    cdef object __weakref__
