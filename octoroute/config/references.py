"""Values that stand elsewhere: `env:NAME` is an environment variable, `file:PATH` the text of a file.

Each reference is looked up once. What it stands for may be a secret: messages show the reference instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 65536


@dataclass(frozen=True, slots=True)
class Found:
    """What a text stands for, or why that can't be told."""

    text: str = ""
    trouble: str = ""


def start_of(path: Path) -> tuple[bytes, str]:
    """The first bytes of a file, one more than are allowed, or why it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1), ""
    except OSError as error:
        return b"", f"the file {path} can't be read ({(error.strerror or 'unknown error').lower()})"
    except ValueError:
        return b"", "a path can't have a zero byte in it"


def is_reference(text: str) -> bool:
    return text.startswith(("env:", "file:"))


class References:
    """Looks up references; relative file paths begin at `folder`, the place of the config file."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self._environ = environ
        self._found: dict[str, Found] = {}

    def look_up(self, text: str) -> Found:
        """The text itself, unless it is a reference."""
        if not is_reference(text):
            return Found(text)
        if text not in self._found:
            scheme, _, name = text.partition(":")
            self._found[text] = self._variable(name) if scheme == "env" else self._file(name)
        return self._found[text]

    def _variable(self, name: str) -> Found:
        if not name:
            return Found(trouble="it names no environment variable; write env:NAME")
        value = self._environ.get(name)
        if value is None:
            return Found(trouble=f"the environment variable {name} is not set")
        if not value:
            return Found(trouble=f"the environment variable {name} is empty")
        return Found(value)

    def _file(self, name: str) -> Found:
        if not name:
            return Found(trouble="it names no file; write file:PATH")
        path = self.folder / name
        data, trouble = start_of(path)
        if trouble:
            return Found(trouble=trouble)
        if len(data) > MAX_FILE_BYTES:
            return Found(trouble=f"the file {path} has more than {MAX_FILE_BYTES} bytes")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return Found(trouble=f"the file {path} is not UTF-8 text")
        text = text.removesuffix("\n").removesuffix("\r")
        return Found(text) if text else Found(trouble=f"the file {path} is empty")
