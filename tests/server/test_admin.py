"""From where an upgrade may be asked for."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from octoroute.server.admin import _is_from_here


def request(peer: Any, own: Any) -> web.BaseRequest:
    names = {"peername": peer, "sockname": own}
    return cast(web.BaseRequest, SimpleNamespace(transport=SimpleNamespace(get_extra_info=names.get)))


@pytest.mark.parametrize(
    ("peer", "own"),
    [
        (("127.0.0.1", 40000), ("127.0.0.1", 3000)),
        (("::1", 40000, 0, 0), ("::1", 3000, 0, 0)),
        (("10.0.0.5", 40000), ("10.0.0.5", 3000)),
        ("", "/run/octoroute.sock"),
    ],
)
def test_a_client_on_the_same_machine_may(peer: Any, own: Any) -> None:
    assert _is_from_here(request(peer, own))


@pytest.mark.parametrize(
    ("peer", "own"),
    [
        (("10.0.0.6", 40000), ("10.0.0.5", 3000)),
        (("fe80::2%eth0", 40000, 0, 2), ("fe80::1%eth0", 3000, 0, 2)),
    ],
)
def test_a_client_elsewhere_may_not(peer: Any, own: Any) -> None:
    assert not _is_from_here(request(peer, own))


def test_a_client_that_has_left_may_not() -> None:
    assert not _is_from_here(cast(web.BaseRequest, SimpleNamespace(transport=None)))
