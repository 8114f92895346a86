"""Lines to a file descriptor, many with one system call, without ever raising or waiting.

`logging` costs about 10 us a line; this costs a list append. The owner calls `flush` by timer and at exit. Lines that
can't be written, because the disk is full or the reader is gone or stands still, are dropped and counted.
"""

import os
import select
import stat
from collections.abc import Callable, Iterator
from typing import Final

FLUSH_BYTES: Final = 65536
KEEP_BYTES: Final = 1048576  # what may wait for a reader that stands still
PIPE_BYTES: Final = (
    select.PIPE_BUF
)  # up to this a pipe takes a write whole: lines of several workers never mix


class LineWriter:
    """`lost` is told how many lines were dropped. `write` and `flush` belong to one thread."""

    def __init__(self, fd: int, lost: Callable[[int], None]) -> None:
        self._fd = fd
        self._lost = lost
        self._lines: list[bytes] = []
        self._size = 0
        self._flush_at = FLUSH_BYTES
        self._inside = False  # the last byte that went out was not a line's end
        self._cut = False  # and the rest of that line was dropped: the next needs a line's end before it
        self._poll: select.poll | None = None
        try:
            regular = stat.S_ISREG(os.fstat(fd).st_mode)
        except OSError:
            regular = False
        if not regular:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)

    @property
    def waiting(self) -> int:
        """Bytes not yet written."""
        return self._size

    def write(self, line: bytes) -> None:
        """Takes `line`, which ends with its line end."""
        self._lines.append(line)
        self._size += len(line)
        if self._size >= self._flush_at:
            self.flush()

    def flush(self) -> None:
        """Writes what waits, as far as that is possible now."""
        lines, self._lines, self._size = self._lines, [], 0
        blocks = self._blocks(lines)
        for block in blocks:
            rest = self._put(block)
            if rest:
                self._keep([rest, *blocks])
                return
        self._flush_at = FLUSH_BYTES

    def _blocks(self, lines: list[bytes]) -> Iterator[bytes]:
        """Whole lines, in pieces that one write takes."""
        if self._poll is None:
            if lines:
                yield b"".join(lines)
            return
        block: list[bytes] = []
        size = 0
        for line in lines:
            if block and size + len(line) > PIPE_BYTES:
                yield b"".join(block)
                block, size = [], 0
            block.append(line)
            size += len(line)
        if block:
            yield b"".join(block)

    def _put(self, block: bytes) -> bytes:
        """What of `block` could not go out yet, to be tried again. What never can go is counted and dropped."""
        if self._cut:
            block, self._cut = b"\n" + block, False
        while block:
            try:
                if self._poll is not None and not self._poll.poll(0):
                    return block
                written = os.write(self._fd, block)
            except BlockingIOError:
                return block
            except OSError:
                self._cut = self._inside
                self._lost(block.removeprefix(b"\n").count(b"\n"))
                return b""
            self._inside = not block[:written].endswith(b"\n")
            block = block[written:]
        return b""

    def _keep(self, blocks: list[bytes]) -> None:
        """Back into the buffer, the oldest first, up to KEEP_BYTES; the next try comes by `flush`, or after as much again."""
        for block in blocks:
            if self._size + len(block) <= KEEP_BYTES:
                self._lines.append(block)
                self._size += len(block)
            else:
                self._lost(block.count(b"\n"))
        self._flush_at = self._size + FLUSH_BYTES
