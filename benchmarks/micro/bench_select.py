"""What a draw and a rebuild cost through the Python call: python -m benchmarks.micro.bench_select [--out F].

The bars: a draw at most 100 ns at 3 and at 1,000 endpoints, a rebuild of 1,000 at most 100 us.
"""

from collections.abc import Callable

from benchmarks.micro.measure import run
from octoroute._select import Selector


def selector(count: int) -> Selector:
    """Unequal weights in one priority group, gates open: every draw throws at the table."""
    names = [f"m{index}" for index in range(count)]
    weights = [1.0 + index % 7 for index in range(count)]
    made = Selector("fast", names, weights, [1] * count, bytearray(count), range(count), seed=1)
    made.rebuild(bytes([1] * count))
    return made


def cases() -> dict[str, tuple[Callable[[], object], int]]:
    small, large, emptied = selector(3), selector(1000), selector(1000)
    all_but_one = list(range(999))
    mask = bytes([1] * 1000)
    weights = [1.0 + index % 7 for index in range(1000)]
    return {
        "draw, 3 endpoints": (small.draw, 2_000_000),
        "draw, 1,000 endpoints": (large.draw, 2_000_000),
        "draw, 3 endpoints, 1 excluded": (lambda: small.draw((0,)), 1_000_000),
        "draw, 3 endpoints, 2 excluded": (lambda: small.draw((0, 1)), 1_000_000),
        "draw, 1,000 endpoints, 2 excluded": (lambda: large.draw((0, 1)), 1_000_000),
        "draw, 1,000 endpoints, 999 excluded": (lambda: emptied.draw(all_but_one), 20_000),
        "rebuild, 1,000 endpoints": (lambda: large.rebuild(mask), 10_000),
        "rebuild, 1,000 endpoints, new weights": (lambda: large.rebuild(mask, weights), 10_000),
    }


if __name__ == "__main__":
    run("draws and rebuilds", cases())
