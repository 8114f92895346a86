"""What a worker tells Redis of a tenant, and what it makes of the answer, or of none."""

import asyncio
import hashlib

import pytest

from octoroute.admission.limits import ADMITTED, TOKENS, Limits, LimitTable, Tenant
from octoroute.sharing.account import Account, Ask

SECOND = 1_700_000_000
ROOM = [1, 0, 61_000, 5, 0, 61_000]


@pytest.fixture
def account() -> Account:
    limits = Limits(requests=10, tokens=100, in_flight=4)
    return Account.of(Tenant(LimitTable(slots=8), "team-a", hashlib.sha256(b"sk-a").digest(), limits))


def asked(account: Account, tokens: int = 5) -> Ask:
    ask = Ask(tokens, asyncio.get_running_loop().create_future())
    account.asks.append(ask)
    return ask


def tell(account: Account) -> None:
    letter = account.take()
    account.call(letter, "w")
    account.arrived(letter, [SECOND])


def arguments(account: Account) -> list[str | int]:
    return list(account.call(account.take(), "w").arguments)


def test_neither_the_name_nor_the_key_goes_to_redis(account: Account) -> None:
    call = account.call(account.take(), "w")
    assert not [part for part in map(str, (*call.keys, *call.arguments)) if "team-a" in part or "sk" in part]
    # The three keys of a tenant are in one place of a cluster.
    assert len({key[key.index("{") : key.index("}")] for key in call.keys}) == 1


async def test_all_that_is_to_be_told_goes_into_one_call(account: Account) -> None:
    account.held, account.requests, account.tokens = 2, 3, 70
    asked(account, 5)
    asked(account, 9)
    account.correct(SECOND - 3, 20, 8)
    account.correct(SECOND - 3, 8, 8)
    assert arguments(account) == [
        *("tell", "w", 10, 100, 4),
        *(2, 3, 70),
        *(2, 5, 9),
        *(SECOND - 3, 20, 8),
    ]
    assert arguments(account)[5:] == [2, 0, 0, 0]


async def test_whoever_is_let_in_is_held_until_it_leaves(account: Account) -> None:
    first, second = asked(account), asked(account)
    letter = account.take()
    account.call(letter, "w")
    account.arrived(letter, [SECOND, ADMITTED, *ROOM, TOKENS, 2, 0, 61_000, 96, 30_000, -1])
    admitted, refused = await first.decision, await second.decision
    assert admitted is not None
    assert refused is not None
    assert (admitted.verdict, admitted.second, admitted.requests.used) == (ADMITTED, SECOND, 1)
    assert (refused.verdict, refused.tokens.wait_s) == (TOKENS, 30.0)
    assert (account.held, account.told) == (1, 1)


async def test_who_left_meanwhile_gives_back_what_it_got(account: Account) -> None:
    ask = asked(account)
    letter = account.take()
    account.call(letter, "w")
    ask.decision.cancel()
    account.arrived(letter, [SECOND, ADMITTED, *ROOM])
    assert (account.held, account.told) == (0, 1)
    assert arguments(account)[5:] == [0, 0, 0, 0, SECOND, 5, 0]


async def test_who_left_before_it_was_asked_for_is_not_asked_for(account: Account) -> None:
    asked(account).decision.cancel()
    assert account.take().asks == []


async def test_what_is_lost_is_told_again_and_who_asked_knows_that_nobody_can_say(account: Account) -> None:
    ask = asked(account)
    account.requests, account.tokens = 1, 10
    account.correct(SECOND, 20, 50)
    account.correct(SECOND, 20, 5)
    account.lost(account.take())
    assert await ask.decision is None
    # What was given back may have arrived; what was used beyond is never forgotten.
    assert (account.requests, account.tokens) == (1, 40)
    assert not account.idle


def test_one_of_which_nothing_is_to_be_told_is_forgotten(account: Account) -> None:
    assert account.idle
    account.held = 1
    assert not account.idle
    tell(account)
    account.held = 0
    # Redis has yet to hear that it is none.
    assert not account.idle
    tell(account)
    assert account.idle
    # What is on its way may come back with somebody who was let in.
    letter = account.take()
    account.call(letter, "w")
    assert not account.idle
    account.arrived(letter, [SECOND])
    assert account.idle
