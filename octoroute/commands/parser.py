"""A parser of arguments that names the word that is wrong, and the one that may have been meant.

argparse alone takes what follows an unknown option for a command, and complains about that.
"""

import argparse
import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

NO_VALUE = 0


class Parser(argparse.ArgumentParser):
    """`commands` are those of `add_subparsers`, by name."""

    commands: Mapping[str, argparse.ArgumentParser]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.commands = {}
        self._options: dict[str, argparse.Action] = {}
        self._takes_words = False
        super().__init__(*arguments, **keywords)
        self.allow_abbrev = False

    def add_argument(self, *arguments: Any, **keywords: Any) -> argparse.Action:
        action = super().add_argument(*arguments, **keywords)
        self._options.update(dict.fromkeys(action.option_strings, action))
        self._takes_words |= not action.option_strings
        return action

    def add_subparsers(self, **keywords: Any) -> Any:
        action = super().add_subparsers(**keywords)
        self.commands = action.choices
        return action

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Called for the arguments behind a command too. Raises SystemExit."""
        self._look_at(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def _look_at(self, arguments: Sequence[str]) -> None:
        words = iter(arguments)
        for word in words:
            if word == "--":
                return
            if word == "-" or not word.startswith("-"):
                if self.commands:
                    if word not in self.commands:
                        self._no_command(word)
                    return  # what follows is for the command's own parser
                if not self._takes_words:
                    self.error(f"{word!r} is not expected here{_about_config(word)}")
                continue
            name, _, _ = word.partition("=")
            if word in self._options:
                if self._options[word].nargs != NO_VALUE:
                    next(words, None)
            elif name not in self._options and (word.startswith("--") or word[:2] not in self._options):
                self._no_option(name)

    def _no_command(self, word: str) -> NoReturn:
        meant = _nearest(word, [*self.commands, *self._options])
        self.error(
            f"there is no command {word!r}"
            + (_about_config(word) or meant or f"; commands: {', '.join(self.commands)}")
        )

    def _no_option(self, name: str) -> NoReturn:
        meant = _nearest(name, self._options)
        longs = [option for option in self._options if option.startswith("--")]
        self.error(f"there is no option {name}" + (meant or f"; options: {', '.join(longs)}"))


def _nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, "" where nothing is near."""
    bare = {one.strip("-"): one for one in known}
    found = difflib.get_close_matches(word.strip("-").lower(), bare, n=1)
    return f"; did you mean {bare[found[0]]}?" if found else ""


def _about_config(word: str) -> str:
    return f"; give the config file as --config {word}" if word.endswith(".toml") else ""
