"""The client of Redis, and what is said where there is none."""

import sys

import pytest

from octoroute.errors import ConfigError
from octoroute.sharing.inspection import inspect
from octoroute.sharing.line import require_client


def test_without_the_package_the_error_names_the_key_and_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    require_client("")
    with pytest.raises(ConfigError) as caught:
        require_client("redis://:secret@localhost")
    assert str(caught.value) == (
        "config: shared.redis_url needs the extra redis; install it with: pip install 'octoroute[redis]'"
    )
    told = inspect("redis://:secret@localhost:6379/0")
    assert told.startswith("Limits hold across gateways by Redis at redis://***@localhost:6379/0, but ")


@pytest.mark.parametrize("query", ["no_such_option=secret", "socket_timeout=secret"])
def test_options_that_the_client_does_not_know_are_an_error_without_their_values(query: str) -> None:
    with pytest.raises(ConfigError, match="has options that the package redis can't use") as caught:
        require_client(f"redis://localhost:6379/0?{query}")
    assert "secret" not in str(caught.value)


def test_check_says_that_redis_does_not_answer_and_shows_no_password() -> None:
    # Port 9 is where nobody listens.
    told = inspect("redis://user:secret@127.0.0.1:9/0")
    assert "redis://***@127.0.0.1:9/0, which can't be used from here now: " in told
    assert "secret" not in told
