from octoroute.exchange cimport RequestView


cpdef RequestView read_view(str path, str request_id, bytes body, headers, bytes forwarded, gateway)
cdef RequestView _view(
    str path, str request_id, bytes body, dict fields, headers, bytes forwarded, gateway, tuple lengths
)
cpdef override(headers, str name, tuple allowed)
