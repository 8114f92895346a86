"""The sockets that clients connect to: made by the supervisor before the workers are forked, one set per
worker.

The workers share the port by SO_REUSEPORT. The supervisor keeps every socket open while it serves, so that
which wait in the queue of a worker that died are served by the one that replaces it. Sockets inherited from
a process that this one replaces are used on. The TLS context is made here too: workers that share its session
keys can resume each other's sessions.
"""

import os
import resource
import socket
import ssl
import stat
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from octoroute.config import Server
from octoroute.errors import ConfigError

BACKLOG = 4096
UNIX = "unix:"


def allow_many_sockets() -> int:
    """Raises this process's limit of open files, and that of its children, as far as it may; the limit.

    A stream takes two, and the usual soft limit of 1,024 is there for programs that call select().
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Not allowed where "unlimited" is more than the system's own bound: then what there is must do.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def open_sockets(
    host: str, port: int, workers: int, inherited: Sequence[socket.socket] = ()
) -> list[list[socket.socket]]:
    """For each worker the listening sockets of all addresses of `host`: those of the `inherited` that are
    bound there, and new ones. Raises ConfigError if that can't be had.
    """
    if host.startswith(UNIX):
        path = host.removeprefix(UNIX)
        taken = [sock for sock in inherited if sock.family == socket.AF_UNIX and sock.getsockname() == path]
        sock = _taken_unix(taken[0], path) if taken and os.path.exists(path) else _unix(path)
        # Unix sockets have no SO_REUSEPORT: all workers accept from one queue.
        return [[sock] for _ in range(workers)]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise _refused(f"server.host is {host!r}, which is no address of this machine: {error}") from None
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    sets: list[list[socket.socket]] = [[] for _ in range(workers)]
    for family, address in addresses:
        taken = [sock for sock in inherited if _is_at(sock, family, address[0], port)]
        if taken:
            # A port of 0 is the one that was found then.
            port = taken[0].getsockname()[1]
        if any(sock.family == family and sock.getsockname()[1] == port for sock in inherited):
            _ours.add((family, address[0], port))
        for index, own in enumerate(sets):
            # All of them: a connection may wait in each, and more will come to each.
            mine = taken[index::workers] or [_tcp(family, (address[0], port, *address[2:]))]
            # Port 0 takes a free one; the other addresses and workers must have the same.
            port = mine[0].getsockname()[1]
            own.extend(mine)
    return sets


def _is_at(sock: socket.socket, family: int, host: object, port: int) -> bool:
    if sock.family != family:
        return False
    name = sock.getsockname()
    return bool(name[0] == host and port in (0, name[1]))


def _taken_unix(sock: socket.socket, path: str) -> socket.socket:
    _files[sock] = path, os.stat(path).st_ino
    return sock


def close_sockets(sets: Iterable[Sequence[socket.socket]], kept: Collection[int] = ()) -> None:
    """Closes the sockets of all workers, here, and removes the file of one of them that was `unix:`, but not
    of those whose descriptors are `kept` by another process.
    """
    for sock in {sock for sockets in sets for sock in sockets}:
        mark = _files.pop(sock, None)
        if mark is not None and sock.fileno() not in kept:
            path, inode = mark
            # Another gateway may have put its own there meanwhile.
            with suppress(OSError):
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
        sock.close()


def tls_context(server: Server) -> ssl.SSLContext | None:
    """What TLS needs, or None where it is off. Raises ConfigError."""
    if not server.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key, password=_no_password)
    except _NeedsPassword:
        problem = f"server.tls_key is {server.tls_key!r}: the key needs a password; store it without one"
    except ssl.SSLError as error:
        problem = _tls_problem(server, error)
    except OSError as error:
        problem = (
            f"server.tls_cert is {server.tls_cert!r}, server.tls_key {server.tls_key!r}: {error.strerror}"
        )
    else:
        return context
    raise _refused(problem)


class _NeedsPassword(Exception):
    pass


def _no_password() -> str:
    raise _NeedsPassword


def _tls_problem(server: Server, error: ssl.SSLError) -> str:
    if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        return (
            f"server.tls_key is {server.tls_key!r}, which is not the key of the certificate in"
            f" server.tls_cert, {server.tls_cert!r}"
        )
    try:
        # A certificate alone can be loaded where trusted ones are.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
            cadata=Path(server.tls_cert).read_text()
        )
    except (OSError, ValueError, ssl.SSLError):
        return f"server.tls_cert is {server.tls_cert!r}, which holds no certificate in PEM form"
    why = (error.reason or "").replace("_", " ").lower()
    if "pem" in why or not why:
        return f"server.tls_key is {server.tls_key!r}, which holds no private key in PEM form"
    return f"server.tls_cert is {server.tls_cert!r}, server.tls_key {server.tls_key!r}: {why}"


def describe(sockets: Sequence[socket.socket], *, tls: bool) -> str:
    """Where clients can connect, as URLs."""
    scheme = "https" if tls else "http"
    urls = []
    for sock in sockets:
        name = sock.getsockname()
        if sock.family == socket.AF_UNIX:
            urls.append(f"{UNIX}{name}")
        else:
            host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
            urls.append(f"{scheme}://{host}:{name[1]}")
    return ", ".join(urls)


def _tcp(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted ones have it from here: a client whose machine is gone is noticed in the end.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _check_free(family, address)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _refused(
            f"server.port is {address[1]}: can't listen on {address[0]}: {error.strerror}"
        ) from None
    return sock


_ours: set[tuple[int, object, object]] = set()


def _check_free(family: int, address: tuple[object, ...]) -> None:
    """SO_REUSEPORT would let two gateways share a port by mistake, each getting half of the requests."""
    key = (family, address[0], address[1])
    if address[1] == 0 or key in _ours:
        return
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        trial.bind(address)
    _ours.add(key)


def _unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode):
            if sock.connect_ex(path) == 0:
                raise _refused(f"server.host is 'unix:{path}': another process listens there")
            # Left behind by a process that was killed.
            os.unlink(path)
            sock.close()
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(path)
        sock.listen(BACKLOG)
        _files[sock] = path, os.stat(path).st_ino
    except OSError as error:
        sock.close()
        raise _refused(f"server.host is 'unix:{path}': {error.strerror or error}") from None
    return sock


_files: dict[socket.socket, tuple[str, int]] = {}


def _refused(problem: str) -> ConfigError:
    return ConfigError("listen", [problem])
