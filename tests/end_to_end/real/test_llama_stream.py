"""A real server's stream on the wire: token by token as it was made, and nothing added or lost."""

from itertools import groupby
from typing import Any

from tests.end_to_end.fleet import Gateway
from tests.end_to_end.real.llama import LlamaServer
from tests.end_to_end.real.raw import ask, connected, events, reads

TOKENS = 200


def _shape(value: Any) -> Any:
    """Keys and types without the values: two runs of one prompt may give two texts."""
    if isinstance(value, dict):
        return {key: _shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_shape(one) for one in value]
    return type(value).__name__


def _shapes(url: str) -> list[Any]:
    """Shapes of a stream's events, repeated ones once: characters of several tokens share one event."""
    with connected(url) as connection:
        answer = ask(
            connection,
            model="smol-fast",
            stream=True,
            max_tokens=24,
            ignore_eos=True,
            stream_options={"include_usage": True},
        )
        assert answer.status == 200
        body = answer.read()
    return [shape for shape, _ in groupby(_shape(event) for event in events(body))]


def test_a_stream_has_the_events_that_the_server_sends_when_asked_directly(
    gateway: Gateway, llamas: dict[str, LlamaServer]
) -> None:
    assert _shapes(gateway.url) == _shapes(llamas["fast"].url)


def test_the_first_token_arrives_while_the_server_still_generates(
    gateway: Gateway, llamas: dict[str, LlamaServer]
) -> None:
    with connected(gateway.url) as connection:
        answer = ask(connection, model="smol-fast", stream=True, max_tokens=TOKENS, ignore_eos=True)
        coming = reads(answer)
        first = next(coming)
        assert llamas["fast"].busy_slots() == 1
        rest = list(coming)
    assert b"data: " in first
    # Each token was sent alone; a gateway that collects would give a few large reads.
    assert len(rest) > TOKENS / 4
    assert len(events(first + b"".join(rest))) >= TOKENS
