"""One worker: an event loop, a gateway, a server on the given sockets; ends when told to, its requests
finished.
"""

import asyncio
import ctypes
import gc
import logging
import signal
import socket
import ssl
from collections.abc import Sequence

import uvloop

from octoroute.config import Config
from octoroute.gateway import Gateway, Shared
from octoroute.server.app import Api
from octoroute.server.reading import seed_ids

log = logging.getLogger(__name__)

# malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD; bytes.
MALLOPT = {-1: 33_554_432, -2: 1_048_576, -3: 8_388_608}

EXIT_FATAL = 70


def run_worker(config: Config, shared: Shared, number: int, sockets: Sequence[socket.socket]) -> int:
    """Serves until SIGTERM, or until a fatal error; the exit code."""
    seed_ids()
    _keep_freed_memory()
    return uvloop.run(_serve(config, shared, number, sockets))


def _keep_freed_memory() -> None:
    """Has the C library keep what large bodies needed, up to a bound, instead of giving it back each time.

    A prompt of 256 KB otherwise costs a round of mapping, page faults and unmapping: 15 % of its CPU.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc; musl has no such thing to tune
        for option, size in MALLOPT.items():
            libc.mallopt(option, size)


async def _serve(config: Config, shared: Shared, number: int, sockets: Sequence[socket.socket]) -> int:
    loop = asyncio.get_running_loop()
    gateway = Gateway(config, shared, worker=number)
    api = Api(gateway)
    gateway.housekeeping.append(api.sweep)
    stop: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not stop.done():
            stop.set_result(code)

    gateway.on_fatal = lambda: end(EXIT_FATAL)
    loop.add_signal_handler(signal.SIGTERM, end, 0)
    context = _tls(config)
    servers = [await loop.create_server(api, sock=sock, ssl=context) for sock in sockets]
    gateway.start()
    # What exists now lives as long as the process: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    log.debug("worker %d serves", number)
    code = await stop
    await _drain(api, servers, config.server.drain_seconds)
    await gateway.close()
    return code


async def _drain(api: Api, servers: Sequence[asyncio.Server], seconds: float) -> None:
    """Accepts nothing new, lets what runs come to its end, for at most `seconds`."""
    for server in servers:
        server.close()
    api.drain()
    try:
        async with asyncio.timeout(seconds):
            await api.idle()
    except TimeoutError:
        log.warning("%d connections were still busy after %g s and are cut", len(api.connections), seconds)
    await api.shutdown(0)


def _tls(config: Config) -> ssl.SSLContext | None:
    if not config.server.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(config.server.tls_cert, config.server.tls_key)
    return context
