"""A place at an endpoint for each attempt of a request: where it may still go, and whether it waits."""

import asyncio
import time
from typing import TYPE_CHECKING

from octoroute.balance.endpoint import Endpoint, Lease
from octoroute.errors import Overloaded

if TYPE_CHECKING:
    from octoroute.upstream.forward import Forwarding


async def next_place(request: "Forwarding") -> Lease[Endpoint] | None:
    """A place for one more attempt, None where there is none to be had. Raises Overloaded,
    FatalSelectionError.
    """
    outcome, terms = request.outcome, request.terms
    while outcome.attempts < terms.attempts:
        failure = request.failure
        # Asked once for each retry, be it at once or after a wait.
        if (
            failure is not None
            and request.queue.promises(request.plan.target, request.group, request.tried)
            and not request.budget.take(terms.retry_budget, time.monotonic())
        ):
            outcome.unretried = failure.label
            return None
        lease = await _untried(request)
        if lease is not None:
            return lease
        if failure is None or not failure.transient or request.group.vacancy() != "free":
            return None
        # Only endpoints that failed just now are left: they get a moment.
        await asyncio.sleep(terms.backoff_s * 2 ** (outcome.attempts - 1))
        request.tried.clear()
    return None


async def _untried(request: "Forwarding") -> Lease[Endpoint] | None:
    """A place at an endpoint that was not tried yet, waited for where all are full."""
    queue, ticket = request.queue, request.ticket
    try:
        if ticket is None:
            pick = request.group.pick if request.failure is None else request.group.pick_steady
            lease = None if queue.waiting else pick(request.tried, request.facts)
            if lease is not None:
                return lease
            ticket = queue.join(
                request.view, request.plan.target, request.group, request.tried, request.facts
            )
            if ticket is None:
                return None
            request.ticket = ticket
        lease = await queue.wait(ticket)
    except Overloaded:
        if request.failure is None:
            raise
        # What went wrong before says more.
        return None
    finally:
        if ticket is not None:
            request.ticket = None
            request.outcome.waited_s += time.monotonic() - ticket.since
            request.outcome.charged += ticket.charged
    # A reload may have brought other endpoints meanwhile.
    request.group, request.facts = ticket.group, ticket.facts
    return lease
