"""The command line: reads the arguments and calls one function for each command.

Modules are imported by the command that needs them, so that `--help` is quick and a fault in one leaves the others.
Exit codes: 0 good, 1 a problem with the config or a file, 2 wrong usage, 130 stopped by Ctrl-C, 141 reader gone.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from octoroute import __version__
from octoroute.errors import ConfigError

DEFAULT_CONFIG: Final = Path("config.toml")
INTERRUPTED: Final = 130
READER_GONE: Final = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code. Wrong usage raises SystemExit(2), --help and --version SystemExit(0)."""
    try:
        try:
            arguments = _parser().parse_args(argv)
            return COMMANDS[arguments.command](arguments)
        finally:
            # Here and not at exit, where a closed pipe could no longer be handled.
            if sys.stdout is not None:
                sys.stdout.flush()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _leave_stdout()
        return READER_GONE
    except OSError as error:
        _leave_stdout()
        print(
            f"octoroute: {error.filename or 'output'}: {(error.strerror or str(error)).lower()}",
            file=sys.stderr,
        )
        return 1


def _leave_stdout() -> None:
    """Lets the interpreter's own flush at exit succeed: what can't be written any more goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="octoroute",
        description="A gateway for your own model servers. Without a command it serves.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"octoroute {__version__}")
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="PATH",
        help="the config file (default: %(default)s)",
    )
    parser.set_defaults(command="serve")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    def add(name: str, description: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=description, description=description, allow_abbrev=False)
        command.set_defaults(command=name)
        # No default here: it would replace a --config that stands before the command.
        command.add_argument(
            "--config", type=Path, default=argparse.SUPPRESS, metavar="PATH", help="the config file"
        )
        return command

    add("serve", "run the gateway (as without a command)")
    config = add("config", "print a commented config to start from")
    config.add_argument("-o", "--output", type=Path, metavar="PATH", help="write it to a new file instead")
    add("check", "say whether the config is valid, and show the servers in it")
    demo = add("demo", "run the gateway with simulated model servers; needs no config")
    demo.add_argument("--port", type=_port, help="port to listen on (default: 3000, or a free one)")
    demo.add_argument("--once", action="store_true", help="end after the two requests that are shown")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; a port is a number from 0 to 65535")
    return int(text)


def _serve(arguments: argparse.Namespace) -> int:
    from octoroute import workers

    return workers.serve(arguments.config)


def _demo(arguments: argparse.Namespace) -> int:
    from octoroute import demonstration

    return demonstration.run(arguments.port, once=arguments.once)


def _config(arguments: argparse.Namespace) -> int:
    from octoroute.config.template import template

    if arguments.output is None:
        print(template(), end="")
        return 0
    path: Path = arguments.output
    try:
        # "x" is O_EXCL: a file that appears in this very moment is not overwritten either.
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError:
        raise ConfigError(
            str(path), ["it exists already and is not overwritten; choose another path"]
        ) from None
    except FileNotFoundError:
        raise ConfigError(str(path), [f"the folder {path.parent} does not exist"]) from None
    print(f"{path} written; next: octoroute check --config {path}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from octoroute.config import load
    from octoroute.config.fleet import fleet_table

    config = load(arguments.config)
    print(f"{arguments.config} is valid.\n\n{fleet_table(config)}")
    return 0


COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "serve": _serve,
    "config": _config,
    "check": _check,
    "demo": _demo,
}
