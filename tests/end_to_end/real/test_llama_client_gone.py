"""A client that leaves in mid-stream frees the real server's slot."""

import socket
import time

import pytest

from tests.end_to_end.fleet import Gateway
from tests.end_to_end.real.llama import LlamaServer
from tests.end_to_end.real.raw import ask, connected

# Far more than 5 s of work: a slot that is idle long before was cancelled, and did not just finish.
MANY_TOKENS = 4000
POLLS = 5
BETWEEN_POLLS_S = 1.0  # llama.cpp notices no leaving client while it is asked more often


@pytest.mark.parametrize("half", [False, True], ids=["closed", "half-closed"])
def test_the_slot_is_idle_soon_after_the_client_is_gone(
    gateway: Gateway, llamas: dict[str, LlamaServer], half: bool
) -> None:
    server = llamas["deep"]
    with connected(gateway.url) as connection:
        answer = ask(connection, model="deep", stream=True, max_tokens=MANY_TOKENS, ignore_eos=True)
        assert b"data: " in answer.read1()
        assert server.busy_slots() == 1
        if half:
            connection.sock.shutdown(socket.SHUT_WR)
        else:
            answer.close()
            connection.close()
        for _ in range(POLLS):
            time.sleep(BETWEEN_POLLS_S)  # the server's state can only be asked for
            if server.busy_slots() == 0:
                break
        else:
            pytest.fail(f"the slot still works {POLLS} s after the client left")
        answer.close()
