"""The command line: reads the arguments and calls one function for each command.

A command imports what it needs by itself, so that `--help` is quick. Exit codes: 0 good, 1 a problem with the
config or a file, 2 wrong usage, 130 stopped by Ctrl-C, 141 nobody reads the output any more.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from octoroute import __version__
from octoroute.commands.parser import Parser
from octoroute.errors import ConfigError
from octoroute.exchange import IMPORTANCES, TASK_TYPES, TIERS

DEFAULT_CONFIG: Final = Path("config.toml")
KIT_ADDRESSES: Final = (("127.0.0.1", 18101), ("127.0.0.1", 18102))
KEY_VARIABLE: Final = "OCTOROUTE_CHECK_KEY"
USAGE: Final = 2
INTERRUPTED: Final = 130
READER_GONE: Final = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    try:
        arguments = _parser().parse_args(argv)
        return COMMANDS[arguments.command](arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        # argparse has printed help or an error, but its text may not have left yet.
        return _say("", end.code if isinstance(end.code, int) else USAGE)


def _say(text: str, code: int = 0) -> int:
    """Prints, and returns the exit code: another one if the text can't be written."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        code = READER_GONE
    except OSError as error:
        print(f"octoroute: can't write to standard output: {_reason(error)}", file=sys.stderr)
        code = 1
    else:
        return code
    # The interpreter flushes once more at its end, and would complain.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return code


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _parser() -> Parser:
    parser = Parser(
        prog="octoroute", description="A gateway for your own model servers. Without a command it serves."
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

    def add(name: str, description: str) -> Parser:
        command: Parser = commands.add_parser(name, help=description, description=description)
        command.set_defaults(command=name)
        # No default here: it would replace a --config that stands before the command.
        command.add_argument(
            "--config", type=Path, default=argparse.SUPPRESS, metavar="PATH", help="the config file"
        )
        return command

    add("serve", "run the gateway (as without a command)")
    config = add("config", "print a commented config to start from")
    config.add_argument("-o", "--output", type=Path, metavar="PATH", help="write it to a new file instead")
    add("check", "say whether the config is valid, and show the servers and tenants in it")
    explain = add("explain", "show where a request would go and why, without sending it")
    explain.add_argument("request", type=Path, metavar="REQUEST", help="its body, a JSON file; - is stdin")
    explain.add_argument("--importance", choices=IMPORTANCES, help="as the header X-Octoroute-Importance")
    explain.add_argument("--task-type", choices=TASK_TYPES, help="as the header X-Octoroute-Task-Type")
    doctor = add("doctor", "ask model servers what they support, and write the config for them")
    doctor.add_argument("urls", nargs="*", metavar="URL", help="a server (default: those of the config)")
    doctor.add_argument("--tier", choices=TIERS, default="fast", help="in the config written for a URL")
    doctor.add_argument(
        "--api-key", default="", metavar="env:NAME", help="the key of the servers at URLs; file:PATH too"
    )
    add("reload", "have the running gateway read its config again")
    add("upgrade", "have a new process of the installed program take over from the running gateway")
    demo = add("demo", "run the gateway with simulated model servers; needs no config")
    demo.add_argument("--port", type=_port, help="port to listen on (default: 3000, or a free one)")
    demo.add_argument("--once", action="store_true", help="end after the two requests that are shown")
    _add_kit(demo)
    return parser


def _add_kit(demo: Parser) -> None:
    """The fault kit: `demo servers`, `demo check`."""
    kit = demo.add_subparsers(metavar="COMMAND", title="for any gateway")

    def add(name: str, description: str) -> Parser:
        command: Parser = kit.add_parser(name, help=description, description=description)
        command.set_defaults(command=f"demo {name}")
        command.add_argument(
            "--listen",
            type=_addresses,
            metavar="HOST:PORT,...",
            help="where the simulated servers listen (default: 127.0.0.1:18101,18102)",
        )
        command.add_argument("--model", default="fault-kit", metavar="NAME", help="the model's name")
        command.add_argument(
            "--kind", choices=("vllm", "llama_cpp"), default="vllm", help="what they are like (default: vllm)"
        )
        return command

    add("servers", "run simulated model servers that misbehave as asked")
    check = add("check", "run every fault through a gateway and show what its clients see")
    check.add_argument(
        "--target", default="", metavar="URL", help="the gateway to check (default: an octoroute of its own)"
    )
    check.add_argument("--only", type=_faults, metavar="NAME,...", help="these faults (default: all)")
    check.add_argument(
        "--patience",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long a client waits before it is a hang (default: 30)",
    )
    check.add_argument(
        "--settle",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long the gateway may take to use a server again that has failed (default: 5)",
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; a port is a number from 0 to 65535")
    return int(text)


def _addresses(text: str) -> list[tuple[str, int]]:
    """`HOST:PORT,HOST:PORT`; a HOST may be left out where it is the one before."""
    found: list[tuple[str, int]] = []
    for one in text.split(","):
        host, colon, port = one.strip().rpartition(":")
        if not colon and not found:
            raise argparse.ArgumentTypeError(f"{one!r} has no host; an address is HOST:PORT")
        found.append((host.strip("[]") if colon else found[-1][0], _port(port)))
    return found


def _faults(text: str) -> list[str]:
    from octoroute.demo import FAULTS

    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no fault {unknown[0]!r}; allowed: {', '.join(FAULTS)}")
    return names


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; allowed: over 0 to 3600 seconds")
    return value


def _serve(arguments: argparse.Namespace) -> int:
    from octoroute.supervisor.workers import serve

    return serve(arguments.config)


def _demo(arguments: argparse.Namespace) -> int:
    from octoroute.commands.demonstration import run

    return run(arguments.port, once=arguments.once)


def _demo_servers(arguments: argparse.Namespace) -> int:
    from octoroute.demo.serving import serve

    try:
        serve(arguments.listen or KIT_ADDRESSES, arguments.kind, arguments.model)
    except OSError as error:
        print(f"octoroute demo servers: can't listen: {_reason(error)}", file=sys.stderr)
        return 1
    return 0


def _demo_check(arguments: argparse.Namespace) -> int:
    from octoroute.commands.fault_check import Options, run
    from octoroute.demo import FAULTS

    # A gateway of our own finds the servers wherever they are.
    addresses = arguments.listen or (KIT_ADDRESSES if arguments.target else Options.addresses)
    if len(addresses) != 2:
        print("octoroute demo check: --listen takes two addresses", file=sys.stderr)
        return USAGE
    return run(
        Options(
            names=arguments.only or list(FAULTS),
            target=arguments.target,
            model=arguments.model,
            api_key=os.environ.get(KEY_VARIABLE, ""),
            addresses=addresses,
            kind=arguments.kind,
            patience_s=arguments.patience,
            settle_s=arguments.settle,
        )
    )


def _config(arguments: argparse.Namespace) -> int:
    from octoroute.config.template import template

    path: Path | None = arguments.output
    if path is None:
        return _say(template())
    _write_new(path, template())
    return _say(f"{path} is written. See what is in it with: octoroute check --config {path}\n")


def _write_new(path: Path, text: str) -> None:
    """Writes a file that does not exist yet. Raises ConfigError, and leaves no half of a file."""
    try:
        # "x" is O_EXCL: a file that appears in this very moment is not overwritten either.
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        problem = "it exists already and is not overwritten; choose another path, or remove it first"
    except FileNotFoundError:
        problem = f"the folder {path.parent} does not exist"
    except OSError as error:
        problem = f"can't be written: {_reason(error)}"
    else:
        try:
            with file:
                file.write(text)
        except OSError as error:
            problem = f"can't be written: {_reason(error)}"
            with suppress(OSError):
                path.unlink()
        else:
            return
    raise ConfigError(str(path), [problem])


def _check(arguments: argparse.Namespace) -> int:
    from octoroute.config import load
    from octoroute.config.fleet import fleet_table, tenant_table

    config = load(arguments.config)
    tenants = f"\n{tenant_table(config)}\n" if config.auth.keys else ""
    shared = ""
    if url := config.shared.redis_url.get_secret_value():
        from octoroute.sharing.inspection import inspect

        shared = f"\n{inspect(url)}\n"
    return _say(f"{arguments.config} is valid.\n\n{fleet_table(config)}\n{tenants}{shared}")


def _explain(arguments: argparse.Namespace) -> int:
    from octoroute.commands.explain_file import explain_file

    return _say(explain_file(arguments.request, arguments.config, arguments.importance, arguments.task_type))


def _doctor(arguments: argparse.Namespace) -> int:
    from octoroute.doctor import run

    text, code = run(arguments.urls, config=arguments.config, tier=arguments.tier, api_key=arguments.api_key)
    return _say(text, code)


def _reload(arguments: argparse.Namespace) -> int:
    from octoroute.commands.admin_request import request_reload

    return _say(request_reload(arguments.config))


def _upgrade(arguments: argparse.Namespace) -> int:
    from octoroute.commands.admin_request import request_upgrade

    return _say(request_upgrade(arguments.config))


COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "serve": _serve,
    "config": _config,
    "check": _check,
    "explain": _explain,
    "doctor": _doctor,
    "reload": _reload,
    "upgrade": _upgrade,
    "demo": _demo,
    "demo servers": _demo_servers,
    "demo check": _demo_check,
}
