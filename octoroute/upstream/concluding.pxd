cimport cython

from octoroute.exchange cimport Outcome, RequestView
from octoroute.upstream.answer cimport Answer
from octoroute.upstream.connection cimport Connection


@cython.locals(answer=Answer)
cpdef conclude(verdict, Connection connection, gathering, RequestView view, client, Outcome outcome)
