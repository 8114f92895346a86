"""Where the compiled relay hands over to the package: nothing here is called per read once an answer flows.

Overridden in upstream/connection.py.
"""

from octoroute._transport cimport Receiver


cdef class TurningPoints(Receiver):
    cpdef on_head(self):
        """A head came, and nothing of its body yet."""

    cpdef on_held(self):
        """The held beginning of the body grew, or the body is complete."""

    cpdef on_end(self):
        """The body is complete and all of it was passed on."""

    cpdef on_failure(self, str reason):
        """The answer can't be completed: `reason` is `closed`, `reset` or `malformed: ...`."""

    cpdef on_quiet(self):
        """The client has heard nothing for `ping_ns`."""

    cpdef on_overdue(self):
        """`deadline_ns` or `idle_ns` is over."""

    cpdef on_silence(self, long long silence_ns):
        """The server has said nothing for more than `watch_ns`; again and again until it does."""

    cpdef on_delivered(self):
        """Many bytes were delivered and kept: somebody should take them."""

    cpdef on_error_word(self, bytes data):
        """What is about to be delivered may hold an error event. True keeps it from the client."""
        return False

    cpdef on_idle_lost(self):
        """The connection ended while no request was under way."""
