"""Lines out to files and pipes, of which some are full, closed or slow."""

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute.observe.line_writer import FLUSH_BYTES, KEEP_BYTES, LineWriter


class Lost:
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, count: int) -> None:
        self.count += count


@pytest.fixture
def lost() -> Lost:
    return Lost()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def drain(fd: int) -> bytes:
    os.set_blocking(fd, False)
    found = b""
    try:
        while data := os.read(fd, 1 << 20):
            found += data
    except BlockingIOError:
        pass
    return found


def lines(count: int, size: int = 100) -> list[bytes]:
    return [b"%d " % at + b"x" * (size - len(b"%d " % at) - 1) + b"\n" for at in range(count)]


def test_nothing_is_written_before_a_flush_and_all_after_it(tmp_path: Path, lost: Lost) -> None:
    with open(tmp_path / "log", "wb") as file:
        writer = LineWriter(file.fileno(), lost)
        writer.write(b"one\n")
        writer.write(b"two\n")
        assert (tmp_path / "log").read_bytes() == b""
        assert writer.waiting == 8
        writer.flush()
        assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
        assert writer.waiting == 0
        writer.flush()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
    assert lost.count == 0


def test_a_full_buffer_flushes_itself(tmp_path: Path, lost: Lost) -> None:
    with open(tmp_path / "log", "wb") as file:
        writer = LineWriter(file.fileno(), lost)
        for line in lines(FLUSH_BYTES // 100 + 1):
            writer.write(line)
        assert (tmp_path / "log").stat().st_size == FLUSH_BYTES // 100 * 100 + 100
        assert writer.waiting == 0


@given(st.lists(st.binary(max_size=9000).map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=8))
def test_a_pipe_carries_every_line_in_order(all_lines: list[bytes]) -> None:
    lost = Lost()
    ends = os.pipe()
    try:
        writer = LineWriter(ends[1], lost)
        found = b""
        for line in all_lines:
            writer.write(line)
            writer.flush()
            found += drain(ends[0])
        while writer.waiting:
            writer.flush()
            found += drain(ends[0])
    finally:
        for end in ends:
            os.close(end)
    assert found == b"".join(all_lines)
    assert lost.count == 0


def test_a_reader_that_stands_still_blocks_nobody_and_gets_the_rest_later(
    pipe: tuple[int, int], lost: Lost
) -> None:
    writer = LineWriter(pipe[1], lost)
    sent = lines(3000)
    for line in sent:
        writer.write(line)
    writer.flush()
    assert 0 < writer.waiting < 300_000
    found = drain(pipe[0])
    while writer.waiting:
        writer.flush()
        found += drain(pipe[0])
    assert found == b"".join(sent)
    assert lost.count == 0


def test_what_waits_for_a_reader_is_bounded_and_the_rest_is_counted(
    pipe: tuple[int, int], lost: Lost
) -> None:
    writer = LineWriter(pipe[1], lost)
    sent = lines(30_000)
    for line in sent:
        writer.write(line)
        assert writer.waiting <= KEEP_BYTES + FLUSH_BYTES
    found = drain(pipe[0])
    while writer.waiting:
        writer.flush()
        found += drain(pipe[0])
    assert lost.count > 0
    assert found.count(b"\n") + lost.count == len(sent)
    assert set(found.splitlines(keepends=True)) <= set(sent)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_closed_pipe_loses_lines_and_disturbs_nobody(
    pipe: tuple[int, int], lost: Lost, blocking: bool
) -> None:
    os.set_blocking(pipe[1], blocking)
    writer = LineWriter(pipe[1], lost)
    os.close(pipe[0])
    for line in lines(1000):
        writer.write(line)
    writer.flush()
    assert lost.count == 1000
    assert writer.waiting == 0


def test_a_closed_descriptor_loses_lines_and_disturbs_nobody(pipe: tuple[int, int], lost: Lost) -> None:
    os.close(pipe[1])
    writer = LineWriter(pipe[1], lost)
    writer.write(b"one\n")
    writer.flush()
    assert lost.count == 1


def test_a_full_disk_loses_lines_but_mixes_none(tmp_path: Path, lost: Lost) -> None:
    """The limit on a file's size stands in for the disk: it lets half a line through, then nothing."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    was = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with open(tmp_path / "log", "wb") as file:
            writer = LineWriter(file.fileno(), lost)
            resource.setrlimit(resource.RLIMIT_FSIZE, (25, usual[1]))
            for _ in range(3):
                writer.write(b"0123456789\n")
            writer.flush()
            writer.write(b"abcdefghij\n")
            writer.flush()
            assert (tmp_path / "log").read_bytes() == b"0123456789\n0123456789\n012"
            assert lost.count == 2
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
            writer.write(b"later\n")
            writer.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, was)
    assert (tmp_path / "log").read_bytes() == b"0123456789\n0123456789\n012\nlater\n"
    assert lost.count == 2
