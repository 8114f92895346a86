"""What a model server can do wrong, by name: one entry of FAULTS each.

To add one, name a behaviour here, and run `make reliability`: docs/reliability.md shows what comes of each.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from octoroute.demo import breaks, forms, refusals
from octoroute.demo.behaviours import CHUNKED, SSE_HEAD, Behaviour, signal
from octoroute.demo.wire import CLOSE, HALF_CLOSE, RESET, STALL, Answer, Request, head


def completions_only(request: Request) -> bool:
    return request.method == "POST"


def every_api_route(request: Request) -> bool:
    return request.path != "/health"


def every_route(request: Request) -> bool:  # noqa: ARG001
    return True


def reused_connections(request: Request) -> bool:
    return request.nth > 1


@dataclass(frozen=True, slots=True)
class Fault:
    """`behave` is None for a port that refuses. `hits` says which requests are met; probes mostly aren't.

    `adds` is text that a stream has before the ordinary one.
    """

    about: str
    behave: Behaviour | None
    hits: Callable[[Request], bool] = completions_only
    adds: str = ""

    @property
    def of_the_server(self) -> bool:
        """Whether it shows in more than single answers, so that it can't be chosen for one request."""
        return self.behave is None or self.hits in (every_api_route, every_route)


def _http_1_0(answer: Answer) -> bytes:
    return head(answer.status, [h for h in answer.headers if h[0] != "Keep-Alive"], "HTTP/1.0")


def _two_lengths(answer: Answer) -> bytes:
    length = len(answer.body) if isinstance(answer.body, bytes) else 0
    return forms.with_headers(("Content-Length", str(length)), ("Content-Length", str(length + 1)))(answer)


def _gzip(body: bytes) -> bytes:
    return zlib.compress(body, wbits=31)


_gzip_head = forms.with_headers(("Content-Encoding", "gzip"), ("Connection", "close"))
_length_and_chunked = forms.with_headers(("Content-Length", "5"), CHUNKED)
_RETRY_AFTER = ("Retry-After", "7")
_EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
_EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
_PAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
_SOON_S = 0.02
_SLOW_S = 1.0

FAULTS: dict[str, Fault] = {
    # The connection ends.
    "refuse": Fault("the port is closed", None),
    "reset-before-head": Fault("RST before any byte", signal(RESET)),
    "reset-after-head": Fault("RST after the head", breaks.after_head(RESET)),
    "reset-mid-stream": Fault("RST between two events", breaks.mid_stream(RESET)),
    "reset-mid-event": Fault("RST inside an event", breaks.mid_stream(RESET, cut=breaks.half)),
    "reset-mid-character": Fault(
        "RST inside a character (if the text is `wide`)",
        breaks.mid_stream(RESET, cut=breaks.up_to_inside_a_character),
    ),
    "close-before-head": Fault("FIN before any byte", signal(CLOSE)),
    "close-mid-head": Fault("FIN inside the head", breaks.inside_head(CLOSE)),
    "close-mid-stream": Fault("FIN after some events, no last chunk", breaks.mid_stream(CLOSE)),
    "close-mid-event": Fault("FIN inside an event", breaks.mid_stream(CLOSE, cut=breaks.half)),
    "close-after-done": Fault("FIN after [DONE], no last chunk", breaks.all_but_the_end(CLOSE)),
    "half-closed": Fault(
        "FIN after some events, and the server goes on reading", breaks.mid_stream(HALF_CLOSE, STALL)
    ),
    "closes-idle": Fault("FIN when a kept connection is used again", signal(CLOSE), reused_connections),
    "closes-soon": Fault(
        "FIN a moment after the answer, on a connection that is said to be kept",
        forms.after_the_answer(_SOON_S, CLOSE),
    ),
    # Silence.
    "stall-before-head": Fault("silence, no byte", signal(STALL)),
    "stall-mid-head": Fault("silence inside the head", breaks.inside_head(STALL)),
    "stall-after-head": Fault("silence after the head", breaks.after_head(STALL)),
    "stall-mid-stream": Fault("silence after some events", breaks.mid_stream(STALL)),
    "stall-mid-event": Fault("silence inside an event", breaks.mid_stream(STALL, cut=breaks.half)),
    "stall-after-done": Fault("silence after [DONE], no last chunk", breaks.all_but_the_end(STALL)),
    "half-open": Fault(
        "a kept connection is dead without a FIN: silence when it is used again",
        signal(STALL),
        reused_connections,
    ),
    "comments-only": Fault("comments, never an event", refusals.comments_only),
    # Refusals.
    "status-400": Fault("400", refusals.status(400, "that can't be done", "invalid_request_error")),
    "status-401": Fault("401", refusals.status(401, "Invalid API Key", "authentication_error")),
    "status-404": Fault("404, no such model", refusals.status(404, "no such model", "not_found_error")),
    "status-429": Fault("429", refusals.status(429, "too many requests", "rate_limit_error")),
    "status-429-retry-after": Fault(
        "429 with Retry-After", refusals.status(429, "too many requests", "rate_limit_error", _RETRY_AFTER)
    ),
    "status-500": Fault("500", refusals.status(500, "the model crashed")),
    "status-502": Fault("502", refusals.status(502, "bad gateway")),
    "status-502-html": Fault(
        "502 with a page of HTML, as a proxy says it",
        refusals.whole(502, _PAGE, ("Content-Type", "text/html")),
    ),
    "status-503-loading": Fault("503 on every API route", refusals.loading, every_api_route),
    "storm-429": Fault(
        "429 on every route, health too",
        refusals.status(429, "too many requests", "rate_limit_error"),
        every_route,
    ),
    "storm-500": Fault(
        "500 on every route, health too", refusals.status(500, "the server crashed"), every_route
    ),
    "storm-503": Fault("503 on every route, health too", refusals.status(503, "no memory"), every_route),
    "error-event-200": Fault("200, an error event, the end", refusals.error_event_200),
    "error-event-mid-stream": Fault("an error event after some events", breaks.error_event_mid_stream),
    # Odd answers, complete.
    "slow-head": Fault("the head comes after a second", forms.before_the_answer(_SLOW_S)),
    "slow-body": Fault("the body comes in bits, over a second", forms.slow_body(10, 0.05)),
    "one-byte-writes": Fault("every byte is a write", forms.in_writes_of(1)),
    "split-utf8": Fault(
        "characters cut between chunks (if the text is `wide`)", forms.each_piece(forms.inside_a_character)
    ),
    "big-event": Fault("an event of 1 MB", forms.big_event, adds=forms.BIG_TEXT),
    "no-space-events": Fault("no space after `data:`", forms.each_piece(forms.without_space)),
    "crlf-events": Fault("CRLF line ends", forms.each_piece(forms.with_crlf)),
    "no-done": Fault("no [DONE]", forms.each_piece(forms.without_done)),
    "bytes-after-done": Fault("an event after [DONE]", forms.each_piece(forms.done_and_more)),
    "bytes-after-end": Fault("another answer behind the end of the body", forms.after_the_answer(_EVIL)),
    "json-for-stream": Fault("plain JSON for a stream", forms.json_for_stream),
    "empty-200": Fault("200 with an empty body", refusals.empty_200),
    "wrong-model": Fault("the answer names another model", forms.wrong_model),
    "http-1.0": Fault("HTTP/1.0, ended by FIN", forms.framed(of_head=_http_1_0, body=bytes, keeps=False)),
    "100-continue": Fault("an interim 100 first", forms.before_the_answer(b"HTTP/1.1 100 Continue\r\n\r\n")),
    "103-early-hints": Fault("an interim 103 first", forms.before_the_answer(_EARLY)),
    "gzip-body": Fault("gzip though nobody asked", forms.framed(of_head=_gzip_head, body=_gzip, keeps=False)),
    # What is no HTTP.
    "wrong-length-short": Fault(
        "Content-Length too small", forms.framed(of_head=forms.with_length(-5), body=bytes, keeps=True)
    ),
    "wrong-length-long": Fault(
        "Content-Length too big, then FIN",
        forms.framed(of_head=forms.with_length(5), body=bytes, keeps=False),
    ),
    "two-content-lengths": Fault(
        "two lengths that differ", forms.framed(of_head=_two_lengths, body=bytes, keeps=True)
    ),
    "length-and-chunked": Fault(
        "a length and chunks at once",
        forms.framed(of_head=_length_and_chunked, body=forms.in_one_chunk, keeps=True),
    ),
    "malformed-chunk": Fault("a chunk size of zz", signal(SSE_HEAD, b"zz\r\nhello\r\n", STALL)),
    "malformed-chunk-mid-stream": Fault(
        "a chunk size of zz after some events", breaks.mid_stream(b"zz\r\nhello\r\n", STALL)
    ),
    "huge-chunk-size": Fault("a chunk size of 2^72", signal(SSE_HEAD, b"fffffffffffffffff0\r\nhi", STALL)),
    "negative-chunk-size": Fault("a chunk size of -5", signal(SSE_HEAD, b"-5\r\nhello\r\n", STALL)),
    "huge-chunk-extension": Fault("a chunk extension of 1 MB", forms.huge_chunk_extension(1 << 20)),
    "malformed-head": Fault("a status that is no number", signal(b"HTTP/1.1 two hundred OK\r\n\r\n", CLOSE)),
    "huge-head": Fault(
        "a head of 1 MB",
        signal(b"HTTP/1.1 200 OK\r\nX-Filler: " + b"a" * (1 << 20) + b"\r\n\r\n", CLOSE),
    ),
}
