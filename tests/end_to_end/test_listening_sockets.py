"""What clients' connections have from the socket that they were accepted at."""

import socket

from octoroute.supervisor.sockets import close_sockets, open_sockets


def test_a_client_whose_machine_is_gone_will_be_noticed() -> None:
    sets = open_sockets("127.0.0.1", 0, 1)
    [[listening]] = sets
    try:
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    finally:
        close_sockets(sets)
