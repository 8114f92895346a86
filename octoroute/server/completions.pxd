from octoroute.exchange cimport RequestView


cpdef RequestView read_view(str path, str request_id, bytes body, headers, bytes forwarded, gateway)
cpdef override(headers, str name, tuple allowed)
