"""Which name a server's certificate must have."""

import pytest

from octoroute._poller import Poller
from octoroute.upstream.outbox import Outbox
from octoroute.upstream.pool import Pool


@pytest.mark.parametrize(
    ("url", "given", "asked"),
    [
        ("https://gpu-1:8443/v1", "", "gpu-1"),
        ("https://10.0.0.1:8443/v1", "llama.internal", "llama.internal"),
        ("http://10.0.0.1:8080/v1", "llama.internal", None),
    ],
)
def test_a_certificate_is_made_out_to_the_host_or_to_the_name_given(
    url: str, given: str, asked: str | None
) -> None:
    pool = Pool(
        url, Outbox(), Poller(), tls_verify=True, tls_server_name=given, connect_s=1.0, clock=lambda: 0.0
    )
    assert pool.server_name == asked
