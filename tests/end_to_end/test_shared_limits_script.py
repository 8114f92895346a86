"""The script that Redis runs, beside the windows of octoroute/_limits.pyx: they count alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from math import ceil
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octoroute._limits import ADMITTED, IN_FLIGHT, REQUESTS, LimitTable, Pass
from octoroute.admission.limits import TOKENS
from tests.end_to_end.redis import RedisServer, needs_redis

pytestmark = needs_redis

CLOCK = "local time = redis.call('TIME')"
SCRIPT = files("octoroute.sharing").joinpath("limits.lua").read_text(encoding="utf-8")
START = 1_000_000.0


class Store:
    """The script with a clock that the test sets."""

    def __init__(self, port: int) -> None:
        import redis

        assert SCRIPT.count(CLOCK) == 1
        self.client = redis.Redis(port=port, protocol=2)
        self.now = START
        self._run = self.client.register_script(SCRIPT.replace(CLOCK, "local time = {KEYS[4], KEYS[5]}"))

    def tell(
        self,
        limits: tuple[int, int, int],
        *asks: int,
        held: int = 0,
        owed: tuple[int, int] = (0, 0),
        corrections: tuple[int, ...] = (),
        worker: str = "a",
    ) -> tuple[int, list[list[int]]]:
        """The second, and per ask its verdict and standings."""
        seconds = int(self.now)
        second, *told = self._run(
            keys=["r", "t", "p", str(seconds), str(int((self.now - seconds) * 1e6))],
            args=["tell", worker, *limits, held, *owed, len(asks), *asks, *corrections],
        )
        return second, [told[at : at + 7] for at in range(0, len(told), 7)]

    def beat(self, gateway: str = "g") -> list[int]:
        seconds = int(self.now)
        answer: list[int] = self._run(
            keys=["gateways", f"gateways:{gateway}", "", str(seconds), str(int((self.now - seconds) * 1e6))],
            args=["beat", gateway],
        )
        return answer


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    import asyncio

    server = RedisServer(tmp_path_factory.mktemp("redis"))
    asyncio.run(server.start())
    yield server.port
    server.kill()


@pytest.fixture
def store(port: int) -> Iterator[Store]:
    one = Store(port)
    one.client.flushall()
    yield one
    one.client.close()


@dataclass
class Begun:
    place: Pass
    second: int
    tokens: int


Step = tuple[str, Any]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.25, 1, 7.5, 30, 61, 200])),
        st.tuples(st.just("ask"), st.integers(1, 30)),
        st.tuples(st.just("end"), st.tuples(st.integers(0, 5), st.integers(0, 120))),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    limits=st.tuples(st.sampled_from([0, 3, 8]), st.sampled_from([0, 20, 60]), st.sampled_from([0, 4])),
    steps=STEPS,
)
def test_redis_decides_as_a_gateway_by_itself_would(
    store: Store, limits: tuple[int, int, int], steps: list[Step]
) -> None:
    store.client.flushall()
    store.now = START
    max_requests, max_tokens, _ = limits
    table = LimitTable(slots=4)
    slot = table.claim(bytes(16))
    begun: list[Begun] = []
    for what, value in steps:
        if what == "wait":
            store.now += value
        elif what == "ask":
            verdict, place = own_verdict(table, slot, store.now, limits, value)
            second, [told] = store.tell(limits, value, held=len(begun))
            assert told[0] == verdict
            if verdict == ADMITTED:
                begun.append(Begun(place, second, value))
            assert told[1:4] == standing(table.requests, slot, store.now, max_requests, 1)
            assert told[4:] == standing(table.tokens, slot, store.now, max_tokens, value)
        elif begun:
            at, used = value
            one = begun.pop(at % len(begun))
            if max_tokens:
                one.place.settle(store.now, used, max_tokens)
            one.place.end()
            correction = (one.second, one.tokens, used) if max_tokens and used != one.tokens else ()
            store.tell(limits, held=len(begun), corrections=correction)


def own_verdict(
    table: LimitTable, slot: int, now: float, limits: tuple[int, int, int], tokens: int
) -> tuple[int, Pass]:
    place = Pass(table, slot)
    verdict = place.begin(now, limits[0], limits[2])
    if verdict == ADMITTED and limits[1] and not place.reserve(now, tokens, limits[1]):
        place.withdraw()
        verdict = TOKENS
    return verdict, place


def standing(look: Any, slot: int, now: float, limit: int, amount: int) -> list[int]:
    if not limit:
        return [0, 0, 0]
    used, wait, reset = look(slot, now, limit, amount)
    # The gateway's own are seconds, and may just be over.
    return [used, ceil(max(0.0, wait) * 1000) if wait >= 0 or amount <= limit else -1, ceil(reset * 1000)]


def test_of_many_that_ask_at_once_so_many_get_in_as_have_room(store: Store) -> None:
    _, told = store.tell((5, 0, 0), *[1] * 8)
    assert [verdict for verdict, *_ in told] == [ADMITTED] * 5 + [REQUESTS] * 3
    assert [used for _, used, *_ in told] == [1, 2, 3, 4, 5, 5, 5, 5]


def test_places_are_those_of_all_workers_that_live(store: Store) -> None:
    limits = (0, 0, 4)
    assert [told[0] for told in store.tell(limits, 1, 1, 1, worker="a")[1]] == [ADMITTED] * 3
    assert [told[0] for told in store.tell(limits, 1, 1, worker="b")[1]] == [ADMITTED, IN_FLIGHT]
    # Whole counts: what a worker says of itself holds.
    store.tell(limits, held=1, worker="a")
    assert [told[0] for told in store.tell(limits, 1, 1, 1, held=1, worker="b")[1]] == [
        ADMITTED,
        ADMITTED,
        IN_FLIGHT,
    ]
    # One that was killed says nothing more.
    store.now += 9
    store.tell(limits, held=3, worker="b")
    store.now += 9
    assert [told[0] for told in store.tell(limits, 1, 1, held=3, worker="b")[1]] == [ADMITTED, IN_FLIGHT]
    assert store.client.hkeys("p") == [b"b"]


def test_what_was_let_through_elsewhere_counts_even_beyond_the_limit(store: Store) -> None:
    store.tell((10, 100, 0), owed=(12, 250))
    _, [told] = store.tell((10, 100, 0), 1)
    assert told[0] == REQUESTS
    assert (told[1], told[4]) == (12, 250)
    store.now += 61
    assert store.tell((10, 100, 0), 1)[1][0][0] == TOKENS
    store.now += 122
    assert store.tell((10, 100, 0), 1)[1][0][0] == ADMITTED


def test_a_clock_that_was_far_ahead_does_not_keep_everybody_out(store: Store) -> None:
    store.now = START + 86_400
    store.tell((1, 0, 0), 1)
    store.now = START
    assert store.tell((1, 0, 0), 1)[1][0][0] == ADMITTED
    # One that is a little behind goes on with the second that was reached.
    store.now = START - 30
    assert store.tell((1, 0, 0), 1)[1][0][0] == REQUESTS


def test_gateways_are_counted_while_they_live_and_each_is_new_once(store: Store) -> None:
    count, since, new = store.beat("a")
    assert (count, new) == (1, 1)
    assert store.beat("b")[0::2] == [2, 1]
    store.now += 5
    assert store.beat("a") == [2, since, 0]
    store.now += 8
    assert store.beat("a") == [1, since, 0]
    store.client.flushall()
    assert store.beat("a")[0::2] == [1, 1]


def test_nothing_is_kept_for_ever(store: Store) -> None:
    store.beat()
    store.tell((10, 10, 10), 5)
    store.tell((10, 10, 10), held=1, owed=(0, 1000))
    left = {key: store.client.ttl(key) for key in ("r", "t", "p", "gateways", "gateways:g")}
    assert all(seconds > 0 for seconds in left.values())
    # What is owed is kept until it is paid.
    assert left["t"] > 100 * 61
