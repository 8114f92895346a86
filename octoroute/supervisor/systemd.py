"""Tells systemd how the gateway is doing, where it wants to know (Type=notify in the unit): sd_notify(3)."""

import logging
import os
import socket
import time

log = logging.getLogger(__name__)

# systemd reads at once. A socket that nobody reads must not hold up the supervisor.
SECONDS = 1.0


def _tell(*lines: str) -> None:
    """Sends `NAME=value` lines. Does nothing where nobody asked for them."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        # The abstract namespace, as it is written.
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(SECONDS)
            sock.sendto("\n".join(lines).encode(), address)
    except OSError as error:
        log.warning("systemd could not be told %s: %s", lines[0], error)


def ready() -> None:
    """The gateway serves."""
    _tell("READY=1")


def reloading() -> None:
    """The config is being read again; `ready` follows."""
    _tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    """The gateway drains, and ends."""
    _tell("STOPPING=1")


def main_process(pid: int) -> None:
    """Another process is the gateway from here."""
    _tell(f"MAINPID={pid}")
