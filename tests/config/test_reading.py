"""Files that are missing, closed, of another kind or in another encoding: what is said, and what to do."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from octoroute.config.reading import MAX_FILE_BYTES, read_text
from octoroute.errors import ConfigError

NOBODY = 65534


def _problem(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_text(path)
    assert caught.value.source == str(path)
    (problem,) = caught.value.problems
    return problem


def test_a_missing_file_is_told_with_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _problem(Path("my config.toml")) == (
        f"no such file (the working directory is {tmp_path}); "
        "`octoroute config -o 'my config.toml'` writes a template"
    )


def test_a_working_directory_that_is_gone_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "(the working directory is gone)" in _problem(Path("config.toml"))


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert _problem(tmp_path) == (
        f"this is a folder; give the path of a file in it, such as {tmp_path / 'config.toml'}"
    )


def test_a_path_through_a_file_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert _problem(tmp_path / "file" / "config.toml") == "can't be read: not a directory"


def test_a_zero_byte_is_in_no_path() -> None:
    assert _problem(Path("a\0b")) == "a path can't have a zero byte in it"


def test_a_file_without_an_end_is_given_up() -> None:
    assert _problem(Path("/dev/zero")) == f"the file has more than {MAX_FILE_BYTES} bytes; is this a config?"


def test_a_byte_that_is_not_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"# fine\nname = 'caf\xe9'\n")
    assert _problem(path) == "line 2, byte 12 of the line: not UTF-8; save the file as UTF-8"


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1")
    assert read_text(path) == "a = 1"


@contextmanager
def _ordinary_user() -> Iterator[None]:
    """root may read everything, so a test that runs as root acts as nobody meanwhile."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_file_of_ones_own_that_is_closed_is_opened_with_chmod(open_folder: Path) -> None:
    path = open_folder / "config.toml"
    path.touch()
    path.chmod(0)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    with _ordinary_user():
        problem = _problem(path)
    assert problem == f"permission denied: you own the file but may not read it; run: chmod u+r {path}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files that another user can't read")
def test_a_file_of_another_user_is_opened_to_ones_group(open_folder: Path) -> None:
    path = open_folder / "config.toml"
    path.touch()
    path.chmod(0o600)
    with _ordinary_user():
        problem = _problem(path)
    assert problem.startswith("permission denied: it belongs to root, and user ")
    assert problem.endswith(f" {path} && sudo chmod g+r {path}")


def test_a_folder_that_may_not_be_entered_is_named(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        with _ordinary_user():
            problem = _problem(closed / "config.toml")
    finally:
        closed.chmod(0o755)
    assert problem.startswith("permission denied: user ")
    assert problem.endswith(
        f" may not enter the folder {closed}; its owner can change that with: chmod a+x {closed}"
    )
