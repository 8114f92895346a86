"""What a pick of each policy and hashing a prompt cost: python -m benchmarks.micro.bench_pick [--out F].

A pick takes a place and gives it back. The figures of prompts are for the whole of one.
"""

from collections.abc import Callable

import orjson

from benchmarks.micro.measure import run
from octoroute._pick import Loads
from octoroute._prefix import prompt_hashes
from octoroute.balance.endpoint import EndpointSpec, FleetState, claim_endpoints
from octoroute.balance.group import Group, PrefixIndex
from octoroute.balance.policies import POLICIES
from octoroute.exchange import RequestView

MB = 1_000_000


def body(size: int, message: str = "word ") -> bytes:
    messages = [{"role": "system", "content": "You are helpful."}]
    count = max(1, size // 2000)
    share = message * (size // count // len(message))
    messages += [{"role": ("user", "assistant")[at % 2], "content": share} for at in range(count)]
    return orjson.dumps({"model": "fast", "stream": True, "messages": messages})


def view(text: bytes) -> RequestView:
    return RequestView(
        "r-1", "/v1/chat/completions", text, orjson.loads(text) | {"user": "u"}, "fast", stream=False
    )


def group(count: int, policy: str, busy: int = 0) -> Group:
    state = FleetState()
    specs = [
        EndpointSpec("fast", f"m{index}", f"http://h{index}/v1", weight=1.0 + index % 7, max_in_flight=64)
        for index in range(count)
    ]
    made = Group("fast", claim_endpoints(specs, state), state, 1, policy=policy, prefixes=PrefixIndex())
    for endpoint in made.endpoints:
        for _ in range(busy):
            state.acquire(endpoint.slot)
    return made


def pick(made: Group, asked: RequestView) -> Callable[[], None]:
    facts = made.facts(asked)

    def call() -> None:
        lease = made.pick((), facts)
        if lease is not None:
            lease.release()

    return call


def spill(made: Group, asked: RequestView) -> Callable[[], int]:
    """A choice whose first candidate is over its bound, so that all are looked at a second time."""
    facts = made.facts(asked)
    assert facts is not None
    endpoints = made.endpoints
    state, weights = endpoints[0].state, [endpoint.weight for endpoint in endpoints]
    loads = Loads(state, [endpoint.slot for endpoint in endpoints], [1] * len(endpoints), PrefixIndex())
    loads.rebuild(bytes([1]) * len(endpoints), weights)
    loads.make_ring(weights)
    owner = endpoints[loads.choose(facts)]
    for _ in range(40):
        state.acquire(owner.slot)
    return lambda: loads.choose(facts)


def cases() -> dict[str, tuple[Callable[[], object], int]]:
    asked = view(body(8_000))
    made: dict[str, tuple[Callable[[], object], int]] = {}
    for count, calls in ((3, 200_000), (64, 200_000), (1000, 50_000)):
        for policy in POLICIES:
            made[f"pick, {policy}, {count:,} endpoints"] = (pick(group(count, policy, 3), asked), calls)
        made[f"choice, over its bound, {count:,} endpoints"] = (
            spill(group(count, "prefix_affinity", 3), asked),
            calls,
        )
    for size, calls in ((1_000, 500_000), (8_000, 200_000), (100_000, 20_000), (1_000_000, 2_000)):
        text = body(size)
        made[f"hash a prompt of {len(text):,} bytes"] = (lambda text=text: prompt_hashes(text, 1), calls)  # type: ignore[misc]
    code = body(100_000, "print(\"a\\n\", 'b') ")
    made[f"hash {len(code):,} bytes full of escapes"] = (lambda: prompt_hashes(code, 1), 20_000)
    session = group(3, "session_affinity")
    made["the hash of a session"] = (lambda: session.facts(asked), 200_000)
    return made


if __name__ == "__main__":
    run("picks and prompts", cases())
