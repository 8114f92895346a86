"""What is freed is there for the next request: memory asked for anew, page by page, takes CPU time."""

import os
import subprocess
import sys

PROGRAM = """
import resource
from octoroute._heap import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        bodies = [bytes(256 << 10) for _ in range(8)]
        del bodies
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
usual = faults()
if keep_freed(8 << 20):
    faults()
    print(usual, faults())
"""


def test_what_requests_free_is_kept_for_the_next_ones() -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, env=plain
    )
    if told.stdout:  # another C library keeps what it likes
        usual, kept = map(int, told.stdout.split())
        # Where the system gives memory in large pages, there are few faults in either case.
        assert 10 * kept < usual
