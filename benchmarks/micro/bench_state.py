"""What a pick, its release and the shared counts cost: python -m benchmarks.micro.bench_state [--out F]."""

from collections.abc import Callable

from benchmarks.micro.measure import run
from octoroute.balance.breaker import record_success
from octoroute.balance.endpoint import EndpointSpec, FleetState, claim_endpoints
from octoroute.balance.group import Group


def group(count: int, state: FleetState) -> Group:
    specs = [
        EndpointSpec("fast", f"m{index}", f"http://h{index}/v1", weight=1.0 + index % 7, max_in_flight=64)
        for index in range(count)
    ]
    return Group("fast", claim_endpoints(specs, state), state, seed=1)


def pick_and_release(made: Group) -> Callable[[], None]:
    pick = made.pick

    def call() -> None:
        lease = pick()
        if lease is not None:
            lease.release()

    return call


def retry_and_release(made: Group) -> Callable[[], None]:
    tried = made.endpoints[:1]

    def call() -> None:
        lease = made.pick(tried)
        if lease is not None:
            lease.release()

    return call


def cases() -> dict[str, tuple[Callable[[], object], int]]:
    state = FleetState(workers=2)
    small, large = group(3, state), group(1000, state)
    endpoint = small.endpoints[0]
    slot = endpoint.slot
    flips = iter(range(10**9))

    def count_once() -> None:
        state.acquire(slot)
        state.release(slot)

    def pick_after_a_change() -> None:
        state.set_draining(slot, next(flips) % 2 == 0)
        lease = large.pick()
        if lease is not None:
            lease.release()

    return {
        "read the generation": (lambda: state.generation, 2_000_000),
        "acquire and release": (count_once, 1_000_000),
        "pick and release, 3 endpoints": (pick_and_release(small), 500_000),
        "pick and release, 1,000 endpoints": (pick_and_release(large), 500_000),
        "pick and release, 3 endpoints, 1 tried": (retry_and_release(small), 500_000),
        "success of a healthy endpoint": (lambda: record_success(endpoint, 1.0), 1_000_000),
        "pick after a change, 1,000 endpoints": (pick_after_a_change, 2_000),
    }


if __name__ == "__main__":
    run("shared counts and picks", cases())
