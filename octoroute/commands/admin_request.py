"""`octoroute reload`, `octoroute upgrade`: ask the running gateway that a config file describes to read that
file again, or to have a new process take over.

The gateway is found where the file says that it listens, and answers `POST /admin/reload`, `/admin/upgrade`.
Where it has keys, that needs the key of an admin: the config holds no more than digests, so it comes from
OCTOROUTE_ADMIN_KEY.
"""

import http.client
import os
import socket
import ssl
from pathlib import Path
from typing import Any, Final

import orjson

from octoroute.config import Server, load
from octoroute.errors import ConfigError

# More than the gateway itself takes before it gives up.
PATIENCE_SECONDS: Final = 90.0
# What a gateway listens on that has no address of its own -> where it can be reached from here.
ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
UNIX: Final = "unix:"
HEADERS: Final = {"Host": "octoroute", "Content-Length": "0"}
KEY_VARIABLE: Final = "OCTOROUTE_ADMIN_KEY"


def request_reload(config_path: Path) -> str:
    """What the reload changed, as text. Raises ConfigError with what is wrong."""
    return told(_ask(config_path, "/admin/reload", "SIGHUP"))


def request_upgrade(config_path: Path) -> str:
    """Who serves now, as text. Raises ConfigError with what is wrong."""
    outcome = _ask(config_path, "/admin/upgrade", "SIGUSR2")
    before, now = outcome["before"], outcome["now"]
    return (
        f"process {now['pid']} (octoroute {now['version']}) serves from here.\n"
        f"process {before['pid']} (octoroute {before['version']}) finishes what it has begun, and ends.\n"
    )


def _ask(config_path: Path, path: str, signal: str) -> dict[str, Any]:
    """What the gateway answers. Raises ConfigError."""
    server = load(config_path).server
    if server.port == 0 and not server.host.startswith(UNIX):
        raise ConfigError(
            str(config_path), [f"server.port is 0, so the gateway can't be found; send it {signal} instead"]
        )
    connection = _Connection(server)
    try:
        connection.request("POST", path, headers={**HEADERS, **_authorization(config_path)})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ConfigError(
            str(config_path), [f"no gateway answers at {connection.where}: {reason.lower()}"]
        ) from None
    finally:
        connection.close()
    try:
        answer: dict[str, Any] = orjson.loads(body)
    except ValueError:
        answer = {}
    if response.status != 200:
        said = answer.get("error", {}).get("message") or f"the gateway answered {response.status}"
        if response.status in (401, 403):
            said += f"; the environment variable {KEY_VARIABLE} is to hold the key of an admin"
        raise ConfigError(str(config_path), [said])
    return answer


def _authorization(config_path: Path) -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE, "")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            str(config_path), [f"the environment variable {KEY_VARIABLE} is no line of ASCII text"]
        )
    return {"Authorization": f"Bearer {key}"} if key else {}


def told(outcome: dict[str, Any]) -> str:
    """The gateway's answer in lines for people."""
    workers, endpoints = outcome["workers"], outcome["endpoints"]
    lines = [f"{workers['reloaded']} of {workers['total']} workers use the new config."]
    for what, names in (
        ("keys changed", outcome["changed"]),
        ("servers added", endpoints["added"]),
        ("servers removed", endpoints["removed"]),
        ("servers changed", endpoints["changed"]),
        ("left as they are until a restart", outcome["needs_restart"]),
    ):
        if names:
            lines.append(f"{what}: {', '.join(names)}")
    return "\n".join(lines) + "\n"


class _Connection(http.client.HTTPConnection):
    """To the gateway itself, over what it listens on. TLS trusts its own certificate and no other."""

    def __init__(self, server: Server) -> None:
        self.path = server.host.removeprefix(UNIX) if server.host.startswith(UNIX) else None
        host = ANY.get(server.host, server.host)
        super().__init__(host if self.path is None else "localhost", server.port, timeout=PATIENCE_SECONDS)
        self.where = f"{host} port {server.port}" if self.path is None else server.host
        self.tls = _trusting(server.tls_cert) if server.tls_cert else None

    def connect(self) -> None:
        if self.path is not None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self.path)
        else:
            super().connect()
        if self.tls is not None:
            self.sock = self.tls.wrap_socket(self.sock)


def _trusting(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Its name need not be that of the address it is reached at here.
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    return context
