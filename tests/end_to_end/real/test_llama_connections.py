"""Many requests through one gateway to one real server, and none fails, however it closes connections.

llama.cpp closes after every stream without saying so, after 100 plain answers, and after 5 s of idleness.
"""

import json
import time

from tests.end_to_end.fleet import Gateway
from tests.end_to_end.real.raw import ask, connected, events

REQUESTS = 500
LONGER_THAN_THE_SERVER_KEEPS_S = 5.5


def test_500_streams_back_to_back(gateway: Gateway) -> None:
    with connected(gateway.url) as connection:
        for _ in range(REQUESTS):
            answer = ask(connection, model="smol-balanced", stream=True, max_tokens=2)
            body = answer.read()
            assert answer.status == 200, body
            assert not [event for event in events(body) if "error" in event]


def test_500_plain_requests(gateway: Gateway) -> None:
    with connected(gateway.url) as connection:
        for _ in range(REQUESTS):
            answer = ask(connection, model="smol-balanced", max_tokens=1)
            body = answer.read()
            assert answer.status == 200, body
            assert json.loads(body)["choices"][0]["finish_reason"] in ("length", "stop")


def test_streams_and_plain_requests_in_turn_and_after_a_pause(gateway: Gateway) -> None:
    with connected(gateway.url) as connection:
        for at in range(60):
            if at % 20 == 19:
                time.sleep(LONGER_THAN_THE_SERVER_KEEPS_S)  # the server has closed its side by then
            answer = ask(connection, model="smol-balanced", stream=at % 2 == 0, max_tokens=1)
            body = answer.read()
            assert answer.status == 200, body
