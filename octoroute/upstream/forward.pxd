cimport cython

from octoroute.balance.endpoint cimport Endpoint
from octoroute.balance.group cimport Group
from octoroute.balance.retry_budget cimport RetryBudget
from octoroute.exchange cimport Outcome, Plan, RequestView
from octoroute.snapshot cimport Terms
from octoroute.upstream.concluding cimport conclude
from octoroute.upstream.connection cimport Connection
from octoroute.upstream.pool cimport Pool
from octoroute.upstream.site cimport Site


cdef class Forwarding:
    cdef public object forwarder
    cdef public RequestView view
    cdef public Plan plan
    cdef public Group group
    cdef public object facts
    cdef public object sites
    cdef public Terms terms
    cdef public object client
    cdef public Outcome outcome
    cdef public RetryBudget budget
    cdef public object queue
    cdef public list tried
    cdef public set struck
    cdef public object failure
    cdef public object hedge
    cdef public object rescue
    cdef public object ticket
    cdef object _done
    cdef public object _lease
    cdef public Connection _connection
    cdef object _gathering
    cdef public bint _stale
    cdef public bint _doubted
    cdef public bint _asks_usage
    cdef public object _request
    cdef public Site _site
    cdef public long long _deadline_ns
    cdef object _dial
    cdef object _task
    cdef bint _runs

    @cython.locals(connection=Connection)
    cpdef start(self)

    cpdef connected(self, Connection connection, tuple unsent)
    cpdef unconnected(self, error)
    cpdef set_result(self, verdict)
    cdef _follow(self, bint over)
    cdef _fail(self, error)
    cdef bint _broken(self) except -1

    @cython.locals(endpoint=Endpoint, site=Site, view=RequestView)
    cdef _begin(self, lease)

    cdef _ask(self, Connection connection, tuple unsent, promise)

    @cython.locals(site=Site)
    cpdef _watch(self, Connection connection)

    cdef bint _ask_as_it_came(self, Connection connection) except -1
    cdef bint _ended(self, verdict) except -1
    cpdef _leave(self, Connection connection)
    cpdef _return_lease(self)

    @cython.locals(endpoint=Endpoint)
    cpdef bint _book(self, failure) except -1

    cdef _give_up(self)
