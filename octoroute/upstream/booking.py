"""What is noted of an answer that flowed, for metrics and log."""

from octoroute.exchange import Outcome, RequestView
from octoroute.upstream.connection import Connection


def book_stream(connection: Connection, view: RequestView, outcome: Outcome) -> None:
    """Notes what went to the client of an answer that flowed, however it ended."""
    outcome.status = connection.head.status
    outcome.ttft_s = (connection.first_ns - view.read_ns) * 1e-9
    outcome.bytes_out = connection.bytes_out
    outcome.chunks = connection.framing.chunks
    outcome.gap_counts, outcome.gap_sum_s = connection.gaps.read()
    outcome.tail = (connection.tail_before or b"") + (connection.tail or b"")
