"""The limits of tenants across gateways: asks Redis once for each request, and tells it how that ended.

Owns when Redis is asked, and what happens while it is away: then nobody waits for it, this gateway lets
through its share of the limits, and tells that when Redis is back. A Redis that has forgotten everything is
told what the last minute here had.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.resources import files
from typing import Final

from octoroute.admission.limits import ADMITTED, Limits, Tenant
from octoroute.config.wording import url_without_secrets
from octoroute.sharing.account import PREFIX, Account, Ask, Decision, Letter
from octoroute.sharing.line import Answer, Away, Call, Line
from octoroute.sharing.outage import Outage

log = logging.getLogger(__name__)

# Before a line that is down is tried again: doubled each time, until it has held for a while.
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 10.0
# After Redis was reached, or emptied, other gateways come back one by one. So long it is not believed that
# there are fewer of them: if it is lost again meanwhile, each would go on with more than its share.
RETURN_SECONDS: Final = 10.0
GATEWAYS: Final = f"{PREFIX}{{gateways}}"


class SharedLimits:
    """Of one worker. `run` it as a task, and call `beat` about once a second. `tenants` are those of now."""

    def __init__(
        self,
        url: str,
        outage: Outage,
        worker: int,
        tenants: Callable[[], Iterable[Tenant]],
        failed: Callable[[str], None],
        before: "SharedLimits | None" = None,
    ) -> None:
        script = files("octoroute.sharing").joinpath("limits.lua").read_text(encoding="utf-8")
        self.up = False
        self.where = url_without_secrets(url)
        self._line = Line(url, script)
        self._outage = outage
        self._worker = worker
        self._name = f"{outage.id}.{os.urandom(4).hex()}"
        self._tenants = tenants
        self._failed = failed
        # By tenant. Requests that began with the one before end in the same accounts.
        self._accounts: dict[str, Account] = {} if before is None else before._accounts
        self._dirty: dict[str, Account] = {}
        self._beats = False
        self._wanted = asyncio.Event()
        self._tried = asyncio.Event()
        self._since = 0  # Redis knows this gateway, as this worker was told
        self._complete_at = 0.0  # all gateways are back
        self._away = False

    def limits(self, tenant: Tenant) -> Limits:
        """What this gateway may let through by itself."""
        return tenant.limits if self.up else tenant.limits.share(self._outage.gateways)

    async def decide(self, tenant: Tenant, tokens: int) -> Decision | None:
        """Whether a request that was let in here may go on. None where Redis is away."""
        # The first ones wait to know whether it is.
        await self._tried.wait()
        if not self.up:
            return None
        account = self._account(tenant)
        account.tenant = tenant
        ask = Ask(tokens, asyncio.get_running_loop().create_future())
        account.asks.append(ask)
        self._want(account)
        try:
            return await ask.decision
        except asyncio.CancelledError:
            # It may have been told just now.
            if ask.decision.done() and not ask.decision.cancelled():
                decision = ask.decision.result()
                if decision is not None and decision.verdict == ADMITTED:
                    self.left(tenant, decision.second, tokens, 0)
            raise

    def left(self, tenant: Tenant, second: int, reserved: int, used: int) -> None:
        """A request that Redis had let through is over."""
        account = self._account(tenant)
        account.held -= 1
        if self.up:
            account.correct(second, reserved, used)
            if account.corrections or tenant.limits.in_flight:
                self._want(account)
        else:
            account.tokens += max(0, used - reserved)

    def let_through(self, tenant: Tenant, reserved: int) -> None:
        """A request goes on that Redis was not asked about."""
        account = self._account(tenant)
        account.held += 1
        account.requests += 1
        account.tokens += reserved

    def left_alone(self, tenant: Tenant, reserved: int, used: int) -> None:
        """A request that was let through without Redis is over."""
        if self.up:
            # What was reserved has been told, in a second that nobody knows: none of it is given back.
            self.left(tenant, 0, reserved, max(reserved, used))
        else:
            account = self._account(tenant)
            account.held -= 1
            account.tokens = max(0, account.tokens + used - reserved)

    def beat(self) -> None:
        """This gateway lives; and Redis gets to know again what it may have forgotten."""
        if not self.up:
            return
        for name, account in list(self._accounts.items()):
            if account.idle:
                del self._accounts[name]
            elif account.held or account.told:
                self._dirty[name] = account
        self._beats = True
        self._wanted.set()

    async def run(self) -> None:
        """For ever."""
        pause = FIRST_PAUSE_SECONDS
        try:
            while True:
                opened = time.monotonic()
                try:
                    await self._line.open()
                    self._complete_at = time.monotonic() + RETURN_SECONDS
                    self._heard(await self._line.run([self._beat()]))
                    self._went_up()
                    await self._converse()
                except Away as away:
                    if self.up and time.monotonic() - opened > STEADY_SECONDS:
                        pause = FIRST_PAUSE_SECONDS
                    self._went_down(away)
                except Exception as error:
                    log.exception("telling Redis of the limits failed")
                    self._went_down(Away("error", type(error).__name__))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        finally:
            await self._end()

    async def _converse(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._exchange()

    async def _exchange(self) -> None:
        """One batch."""
        beats, self._beats = self._beats, False
        accounts, self._dirty = list(self._dirty.values()), {}
        letters = [(account, account.take()) for account in accounts]
        calls = [account.call(letter, self._name) for account, letter in letters]
        if beats:
            calls.append(self._beat())
        try:
            answers = await self._line.run(calls)
        except BaseException:
            for account, letter in letters:
                account.lost(letter)
            raise
        self._arrived(letters, answers)
        if beats:
            self._heard(answers[-1:])

    def _arrived(self, letters: list[tuple[Account, Letter]], answers: list[Answer]) -> None:
        for (account, letter), answer in zip(letters, answers, strict=False):
            account.arrived(letter, answer)
            if account.corrections or account.told != account.held:
                self._want(account)

    def _beat(self) -> Call:
        return Call((GATEWAYS, f"{GATEWAYS}:{self._outage.id}"), ("beat", self._outage.id))

    def _heard(self, answers: list[Answer]) -> None:
        """What Redis knows of the gateways."""
        [[gateways, since, new]] = answers
        now = time.monotonic()
        if self._since not in (0, since):
            self._complete_at = now + RETURN_SECONDS
        self._outage.gateways = gateways if now >= self._complete_at else max(gateways, self._outage.gateways)
        if self._since not in (0, since) or (new and self._outage.since):
            # It was emptied. One worker of each gateway tells what its last minute had, of all workers.
            for account in self._accounts.values():
                account.requests = account.tokens = 0
            if new:
                self._tell_all()
        self._since = self._outage.since = since

    def _tell_all(self) -> None:
        now = time.monotonic()
        for tenant in self._tenants():
            limits = tenant.limits
            account = self._account(tenant)
            if limits.requests:
                account.requests = tenant.table.requests(tenant.slot, now, limits.requests)[0]
            if limits.tokens:
                account.tokens = tenant.table.tokens(tenant.slot, now, limits.tokens)[0]
            if account.requests or account.tokens:
                self._want(account)
        log.info("Redis at %s has forgotten what was used: it is told again", self.where)

    def _went_up(self) -> None:
        self.up = True
        self._tried.set()
        self._outage.note(self._worker, "up")
        self._dirty = {name: account for name, account in self._accounts.items() if not account.idle}
        if self._dirty:
            self._wanted.set()
        self._away = False
        if self._outage.ends():
            gateways = self._outage.gateways
            log.info("limits hold across gateways again (%d), by Redis at %s", gateways, self.where)

    def _went_down(self, away: Away) -> None:
        self.up = False
        self._tried.set()
        for account in self._accounts.values():
            account.lost(account.take())
        self._dirty, self._beats = {}, False
        self._failed(away.reason)
        if self._away:
            return
        self._away = True
        self._outage.note(self._worker, "away")
        if self._outage.begins():
            gateways = self._outage.gateways
            log.warning(
                "Redis at %s can't be used (%s): until it can, this gateway goes on with 1/%d of the limits",
                self.where,
                away,
                gateways,
            )

    def _want(self, account: Account) -> None:
        if self.up:
            self._dirty[account.tenant.name] = account
            self._wanted.set()

    def _account(self, tenant: Tenant) -> Account:
        account = self._accounts.get(tenant.name)
        if account is None:
            account = self._accounts[tenant.name] = Account.of(tenant)
        return account

    async def _end(self) -> None:
        """What is left to be told, is told: the last requests may just have ended."""
        if self.up:
            self._dirty = {name: account for name, account in self._accounts.items() if not account.idle}
            with suppress(Away):
                await self._exchange()
        self.up = False
        self._tried.set()
        for account in self._accounts.values():
            account.lost(account.take())
        await self._line.close()
