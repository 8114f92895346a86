"""Reads the text of a config file, and tells what to do where that fails."""

import grp
import os
import pwd
import shlex
from pathlib import Path
from typing import Final

from octoroute.errors import ConfigError

MAX_FILE_BYTES: Final = 16_777_216


def read_text(path: Path) -> str:
    """The file's text without a byte order mark. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        problem = (
            f"no such file (the working directory is {_working_directory()}); "
            f"`octoroute config -o {shlex.quote(str(path))}` writes a template"
        )
    except IsADirectoryError:
        problem = "this is a folder; give the path of a file in it, such as " + shlex.quote(
            str(path / "config.toml")
        )
    except PermissionError:
        problem = _denied(path)
    except OSError as error:
        problem = f"can't be read: {(error.strerror or str(error)).lower()}"
    except ValueError:
        problem = "a path can't have a zero byte in it"
    else:
        if len(data) <= MAX_FILE_BYTES:
            return _decoded(data, path)
        problem = f"the file has more than {MAX_FILE_BYTES} bytes; is this a config?"
    raise ConfigError(str(path), [problem])


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        problem = f"line {line}, byte {column} of the line: not UTF-8; save the file as UTF-8"
    raise ConfigError(str(path), [problem])


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return "gone"


def _denied(path: Path) -> str:
    """What to do so that this process may read the file."""
    user = _user_name(os.geteuid())
    for folder in reversed(path.absolute().parents):
        if not os.access(folder, os.X_OK, effective_ids=True):
            return (
                f"permission denied: user {user} may not enter the folder {folder}; "
                f"its owner can change that with: chmod a+x {shlex.quote(str(folder))}"
            )
    name = shlex.quote(str(path))
    try:
        owner = path.stat().st_uid
    except OSError:
        return f"permission denied: user {user} may not read it"
    if owner == os.geteuid():
        return f"permission denied: you own the file but may not read it; run: chmod u+r {name}"
    return (
        f"permission denied: it belongs to {_user_name(owner)}, and user {user} may not read it; "
        f"run: sudo chgrp {_group_name(os.getegid())} {name} && sudo chmod g+r {name}"
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
