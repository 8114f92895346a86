"""Why an attempt gave no answer, in words for the client and in a label for the metrics."""

from dataclasses import dataclass

from octoroute.balance.group import Group
from octoroute.errors import GatewayError, NoEndpoint, Overloaded, UpstreamFailed, UpstreamTimeout
from octoroute.exchange import Plan
from octoroute.snapshot import Terms
from octoroute.upstream.answer import Answer, server_message


@dataclass(frozen=True, slots=True)
class Failure:
    """`label` goes into metrics. `transient`: the same endpoint may be asked again. `ends`: nobody else is
    asked. `answer`: the server's own words, to be passed on if nobody else answers.
    """

    error: GatewayError
    label: str
    transient: bool = False
    ends: bool = False
    answer: Answer | None = None


def refused(answer: Answer) -> Failure:
    """A server's complete answer whose status says that another one may do better."""
    label = f"status_{answer.status}"
    if answer.status == 429:
        return Failure(Overloaded("the server is overloaded"), label, answer=answer)
    said = server_message(answer)
    message = f"the server answered {answer.status}" + (f": {said}" if said else "")
    kind = UpstreamTimeout if answer.status == 504 else UpstreamFailed
    return Failure(kind(message), label)


def no_stream(answer: Answer) -> Failure:
    """A server's complete answer where the client has been promised a stream already."""
    message = server_message(answer) or f"the server answered {answer.status} and no stream"
    return Failure(UpstreamFailed(message), f"status_{answer.status}", ends=True)


def failed(reason: str) -> Failure:
    """An exchange that ended for `reason` (Connection.reason) before anything went to the client."""
    if reason.startswith("malformed"):
        return Failure(UpstreamFailed("the server's answer was malformed", detail=reason), "malformed")
    if reason == "error event":
        return Failure(
            UpstreamFailed("the server began its stream with an error", detail=reason), "error_event"
        )
    if reason.startswith("status"):
        return Failure(
            UpstreamFailed(f"the server answered with {reason}", detail=reason), reason.replace(" ", "_")
        )
    return Failure(UpstreamFailed("the server closed the connection", detail=reason), reason, transient=True)


def timed_out() -> Failure:
    """An exchange without an answer in time."""
    return Failure(UpstreamTimeout("the server did not answer in time"), "timeout")


def broke_off() -> UpstreamFailed:
    """What a client is told when its stream can't be completed."""
    return UpstreamFailed("the server's answer ended early", code="stream_interrupted")


def nobody(group: Group, plan: Plan, terms: Terms) -> GatewayError:
    """Why no endpoint could be asked."""
    target = f"tier {plan.target.tier}" if plan.target.name is None else f"endpoint {plan.target.name}"
    if group.vacancy() == "full":
        return Overloaded(f"every endpoint of {target} is busy", retry_after_s=1)
    return NoEndpoint(f"no healthy endpoint in {target}", retry_after_s=terms.retry_after_s)
