"""Overwrites numbers in the memory of a running process, as a stray pointer would."""

import re
import struct

REGION = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ \S+ *(.*)")
# A sanitizer reserves terabytes, in which there is no data of ours.
MAX_REGION_BYTES = 1 << 28
NOT_A_NUMBER = struct.pack("d", float("nan"))


def corrupt(pid: int, number: float) -> int:
    """Turns each copy of a double in a process's own writable memory into NaN; how many there were.

    Memory that it shares with others stays. Raises PermissionError where the system forbids it.
    """
    found = 0
    wanted = struct.pack("d", number)
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in maps:
            match = REGION.match(line)
            if not match or match[3].startswith("[v"):
                continue
            start, end = int(match[1], 16), int(match[2], 16)
            if end - start > MAX_REGION_BYTES:
                continue
            try:
                memory.seek(start)
                region = memory.read(end - start)
            except OSError:
                continue
            at = region.find(wanted)
            while at >= 0:
                memory.seek(start + at)
                memory.write(NOT_A_NUMBER)
                found += 1
                at = region.find(wanted, at + 8)
    return found
