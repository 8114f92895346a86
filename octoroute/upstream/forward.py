"""Attempts: sends a request to one endpoint after another until an answer flows or none is left to try.

Which endpoint is tried is decided by balance/; whether an answer is worth passing on by connection.py; here
is what follows from a verdict. Nothing of an answer has gone to the client while another endpoint is tried,
so the client does not notice.

The usual request finds an idle connection or has one made, is written at once, and its answer ends it: no
task, no future. Whatever has to wait (for a place, for another attempt) makes a task of it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from octoroute.balance.breaker import record_failure, record_success
from octoroute.balance.endpoint import Endpoint, Lease
from octoroute.balance.group import Group
from octoroute.errors import UpstreamFailed
from octoroute.exchange import Outcome, Plan, RequestView
from octoroute.snapshot import Terms
from octoroute.upstream.booking import book_stream
from octoroute.upstream.client import Client
from octoroute.upstream.concluding import conclude
from octoroute.upstream.connection import DOUBT_NS, PING_NS, Connection, Promise, Verdict
from octoroute.upstream.dial import Dial, Pieces
from octoroute.upstream.failure import Failure, nobody
from octoroute.upstream.forwarder import Forwarder
from octoroute.upstream.hedge import Hedge, may_hedge
from octoroute.upstream.placing import next_place
from octoroute.upstream.plain_option import Gathering
from octoroute.upstream.resume import Rescue
from octoroute.upstream.site import Site
from octoroute.upstream.waiting import Ticket

WHY = b"x-octoroute-attempts: %d\r\nx-octoroute-overhead-ms: %.3f\r\n"


class Forwarding:
    """One request's attempts. `start` it; `done` is called once, with None where the client got an answer
    (be it the server's own 4xx, or one that broke off), or with what went wrong before anything but comment
    lines had gone out: a GatewayError, or CancelledError where the client left.

    Fills in `outcome`.
    """

    def __init__(
        self,
        forwarder: Forwarder,
        view: RequestView,
        plan: Plan,
        group: Group,
        sites: Mapping[Endpoint, Site],
        terms: Terms,
        client: Client,
        outcome: Outcome,
        done: Callable[[BaseException | None], None],
    ) -> None:
        self.forwarder = forwarder
        self.view = view
        self.plan = plan
        self.group = group
        self.facts = group.facts(view)
        self.sites = sites
        self.terms = terms
        self.client = client
        self.outcome = outcome
        self.budget = forwarder.budgets[plan.target.tier]
        self.queue = forwarder.queues[plan.target.tier]
        self.tried: list[Endpoint] = []
        self.struck: set[Endpoint] = set()
        self.failure: Failure | None = None
        self.hedge: Hedge | None = None
        # Made when there is a connection to watch over.
        self.rescue: Rescue | None = None
        # While it waits for a place.
        self.ticket: Ticket | None = None
        self._done = done
        # Of the attempt under way. It has begun where there is a lease, and is sent where there is a
        # connection. `_stale`: it needs a new one, because the idle one was dead or the request is another.
        # `_doubted`: it is made without asking for the usage, because the server may have refused just that.
        self._lease: Lease[Endpoint] | None = None
        self._connection: Connection | None = None
        self._gathering: Gathering | None = None
        self._stale = False
        self._dial: Dial | None = None
        self._task: asyncio.Task[None] | None = None
        self._runs = False

    def start(self) -> None:
        """Sends the request: at once where an idle connection waits for it, else by a task. Raises
        InvalidRequest, Overloaded, FatalSelectionError.
        """
        self.budget.requests += 1
        queue = self.queue
        lease = None if queue.waiting or queue.elsewhere() else self.group.pick((), self.facts)
        if lease is None:
            self.ticket = queue.join(self.view, self.plan.target, self.group, (), self.facts)
        else:
            self._begin(lease)
            connection = self._site.pool.take()
            if connection is not None:
                self._ask(connection, self._request, self)
            else:
                dial = self._site.pool.dial(self._deadline_ns, self, self._request)
                if dial.pending:
                    self._dial = dial
            return
        self._task = asyncio.get_running_loop().create_task(self._run())

    def cancel(self) -> None:
        """The client has left: the server's connection is closed at once."""
        if self._task is not None:
            if self.ticket is not None:
                self.queue.leave(self.ticket)
            self._task.cancel()
            if not self._runs:
                # A task that is cancelled before its first step never takes it.
                self._runs = True
                self._return_lease()
                self._done(asyncio.CancelledError())
        elif self._dial is not None:
            self._dial.cancel()
            self._dial = None
            self._return_lease()
            self._done(asyncio.CancelledError())
        elif self._connection is not None:
            self._connection.client_gone()

    # The connection that `start` had made (dial.py: Caller).

    def connected(self, connection: Connection, unsent: Pieces) -> None:
        """What is left of the request goes out at once."""
        self._dial = None
        try:
            self._ask(connection, unsent, self)
        except BaseException as error:
            if self._connection is None:
                connection.close()
            self._fail(error)

    def unconnected(self, error: UpstreamFailed) -> None:
        """Another attempt may follow."""
        self._dial = None
        try:
            over = self._book(Failure(error, "connect", transient=True))
        except BaseException as raised:
            self._fail(raised)
        else:
            self._follow(over)

    # What a future would do, for the attempt that `start` sent (connection.py: Promise).

    def done(self) -> bool:
        """Whether the verdict is there already: it is taken at once, so never."""
        return False

    def set_result(self, verdict: Verdict) -> None:
        """The attempt that `start` sent has ended."""
        try:
            over = self._ended(verdict)
        except BaseException as error:
            self._fail(error)
        else:
            self._follow(over)

    def _follow(self, over: bool) -> None:
        if over and not self._broken():
            self._done(None)
        else:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def _fail(self, error: BaseException) -> None:
        if self._connection is not None:
            self._leave(self._connection)
        self._return_lease()
        self._done(error)

    def _broken(self) -> bool:
        """Whether a stream broke that may go on elsewhere."""
        return self.rescue is not None and self.rescue.broke

    async def _run(self) -> None:
        """What is left to do: the attempts, the one that has begun first, and the rest of a broken stream."""
        self._runs = True
        try:
            while not self._broken():
                if self._lease is None:
                    lease = await next_place(self)
                    if lease is None:
                        self._give_up()
                        break
                    self._begin(lease)
                if await self._attempt():
                    break
            if self.rescue is not None and self.rescue.broke:
                await self.rescue.carry_on()
        except BaseException as error:
            self._fail(error)
        else:
            self._done(None)

    def _begin(self, lease: Lease[Endpoint]) -> None:
        """One attempt more. Raises InvalidRequest."""
        endpoint = lease.endpoint
        self._lease = lease
        self._stale = False
        self._site = site = self.sites[endpoint]
        self.tried.append(endpoint)
        self.outcome.attempts += 1
        self.outcome.endpoint = endpoint.spec.name
        view = self.view
        self._doubted = False
        self._asks_usage = view.stream and site.usage.wanted(view)
        self._gathering = None if site.plain is None else site.plain.gathering(view)
        try:
            self._request = site.writer.pieces(view, self._asks_usage, self._gathering is not None)
        except BaseException:
            self._return_lease()
            raise
        self._deadline_ns = time.monotonic_ns() + self.terms.timeout_ns

    async def _attempt(self) -> bool:
        """Does the attempt that has begun. See _ended."""
        pool = self._site.pool
        connection = None if self._stale else pool.take()
        if connection is None:
            try:
                connection = await pool.connect(self._deadline_ns)
            except UpstreamFailed as error:
                return self._book(Failure(error, "connect", transient=True))
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._ask(connection, self._request, future)
        return self._ended(await future)

    def _ask(self, connection: Connection, unsent: Pieces, promise: Promise) -> None:
        view, outcome, client = self.view, self.outcome, self.client
        if outcome.overhead_s < 0:
            outcome.overhead_s = (time.monotonic_ns() - view.read_ns) * 1e-9 - outcome.waited_s
        lost = connection.closed
        if lost:
            self._watch(connection)
        connection.ask(
            unsent,
            client if self._gathering is None else self._gathering.on_behalf_of(client, connection),
            self._deadline_ns,
            self.terms.idle_ns,
            PING_NS if view.stream else 0,
            promise,
        )
        if not lost:
            # While the server reads.
            self._watch(connection)
        if self._asks_usage:
            connection.leave_out_usage()
        if self.terms.hedge_s is not None and outcome.attempts == 1 and may_hedge(view):
            self.hedge = Hedge(self, connection, self.forwarder.hedging[self.plan.target.tier])

    def _watch(self, connection: Connection) -> None:
        """The answer comes from there."""
        outcome, client, site = self.outcome, self.client, self._site
        if self.terms.why_headers:
            why = WHY % (outcome.attempts, outcome.overhead_s * 1e3)
            client.why = b"".join((site.why, self.plan.why, why))
        else:
            client.why = self.plan.notes
        self._connection = connection
        self.forwarder.active[connection] = self.tried[-1]
        if self.view.stream:
            connection.watch_ns = DOUBT_NS
            if self.rescue is None:
                self.rescue = Rescue.of(self)
            if self.rescue is not None:
                self.rescue.watch_over(connection, self.tried[-1])
        client.attach(connection)

    def _ended(self, verdict: Verdict) -> bool:
        """What follows from an attempt's end: whether the request is over. Raises what it is over with."""
        connection = self._connection
        assert connection is not None
        if verdict is Verdict.FAILED and connection.unanswered and connection.was_reused:
            # The server closed an idle connection just when it was used again: nobody's fault.
            if connection.carried_stream:
                self._site.pool.learn_that_it_closes()
            self._stale = True
            self._leave(connection)
            return False
        if self._asks_usage and self._site.usage.doubted(verdict, connection):
            self._asks_usage = False
            self._doubted = True
            return self._ask_as_it_came(connection)
        if self._gathering is not None:
            plain = self._gathering.ended(verdict)
            if plain is None:
                self._deadline_ns = time.monotonic_ns() + self.terms.timeout_ns
                return self._ask_as_it_came(connection)
            verdict = plain
        try:
            failure = conclude(verdict, connection, self._gathering, self.view, self.client, self.outcome)
        finally:
            self._leave(connection)
        if self._doubted and self.outcome.status == 200:
            self._site.usage.refused()
        return self._book(failure)

    def _ask_as_it_came(self, connection: Connection) -> bool:
        """The same attempt is made once more."""
        self._stale = True
        self._request = self._site.writer.pieces(self.view)
        self._leave(connection)
        return False

    def _leave(self, connection: Connection) -> None:
        """Lets go of a connection: back to its pool, or closed."""
        if self.hedge is not None:
            self.hedge.end(connection)
            self.hedge = None
        self._connection = None
        self.client.attach(None)
        endpoint = self.forwarder.active.pop(connection)
        if self.view.stream and connection.first_ns and connection.head.status == 200:
            asked_ns = self._deadline_ns - self.terms.timeout_ns
            endpoint.state.note_ttft(endpoint.slot, (connection.first_ns - asked_ns) * 1e-9)
        if connection.bytes_out and (self._gathering is None or self._gathering.passes):
            book_stream(connection, self.view, self.outcome)
        connection.release()

    def _return_lease(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
            if self.queue.waiting:
                self.queue.freed()

    def _book(self, failure: Failure | None) -> bool:
        """Tells the endpoint how the attempt ended; whether the request is over. Raises what it is over
        with.
        """
        endpoint = self.tried[-1]
        self._return_lease()
        outcome = self.outcome
        if failure is None:
            # An answer that broke off says nothing about the endpoint's next one.
            if outcome.result != "broken":
                record_success(endpoint, time.monotonic())
            return True
        outcome.failures.append((endpoint.spec.name, failure.label))
        if failure.ends:
            failure.error.retryable = False
            raise failure.error
        self.failure = failure
        # One request counts once against an endpoint, however often it had to be tried.
        if endpoint not in self.struck:
            self.struck.add(endpoint)
            record_failure(endpoint, self.terms.failures)
        return False

    def _give_up(self) -> None:
        """Nobody is left to be tried: passes on what the last one said, or raises what went wrong."""
        failure = self.failure
        if failure is None:
            raise nobody(self.group, self.plan, self.terms)
        if failure.answer is None or self.client.started:
            raise failure.error
        self.client.send_whole(failure.answer)
        self.outcome.status = failure.answer.status
        self.outcome.result = "error"
