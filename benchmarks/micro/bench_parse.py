"""What reading bytes costs: heads, framing, bodies: python -m benchmarks.micro.bench_parse [--out F]."""

import json
from collections.abc import Callable

from benchmarks.micro.measure import run
from octoroute._framing import Framing
from octoroute._http1 import parse_head
from octoroute._json import Splicer
from octoroute._request import read_head

HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\nKeep-Alive: timeout=5\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway:3000\r\nUser-Agent: OpenAI/Python 2.8.1\r\n"
    b"Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
)
SPLICER = Splicer(b'"qwen3-8b"', b"0.7", b"4096", b"{}")


def body(prompt_bytes: int) -> bytes:
    prompt = "The quick brown fox jumps over the lazy dog. " * (prompt_bytes // 45)
    return json.dumps({"model": "auto", "messages": [{"role": "user", "content": prompt}]}).encode()


def cases() -> dict[str, tuple[Callable[[], object], int]]:
    framing = Framing(2)
    thirty_two = CHUNK * 32
    small, large = body(200), body(256 * 1024)
    return {
        "head of a stream": (lambda: parse_head(HEAD), 200_000),
        "framing, one chunk": (lambda: framing.feed(CHUNK), 500_000),
        "framing, 32 chunks in one read": (lambda: framing.feed(thirty_two), 50_000),
        "head of a request": (lambda: read_head(REQUEST), 500_000),
        "splices, small request": (lambda: SPLICER.splice(small, True, False), 500_000),
        "splices, 256 KB prompt": (lambda: SPLICER.splice(large, True, False), 20_000),
    }


if __name__ == "__main__":
    run("heads, framing and bodies", cases())
