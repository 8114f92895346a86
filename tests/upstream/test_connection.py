"""The connection to a model server, as the event loop sees it."""

import asyncio

from octoroute.upstream.connection import Connection


def test_a_connection_has_all_that_the_event_loop_calls() -> None:
    # Some calls come rarely: pause_writing only when a large request meets a slow reader.
    calls = [name for name in dir(asyncio.Protocol) if not name.startswith("_")]
    assert [name for name in calls if not hasattr(Connection, name)] == []
