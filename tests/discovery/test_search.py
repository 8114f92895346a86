"""What the process that looks needs, and what it tells."""

import pytest

from octoroute.config import Config
from octoroute.config.found import Address
from octoroute.config.sources import DnsSource
from octoroute.discovery import search
from octoroute.discovery.dns import within_bounds
from octoroute.discovery.search import MAX_SERVERS, Teller, require_extras
from octoroute.errors import ConfigError
from octoroute.supervisor.channel import Channel
from tests.config.sample import config

SOURCE = {"name": "found", "base_url": "http://llama.internal/v1", "max_tokens": 8}


def sourced() -> Config:
    return config(("discovery.dns.fast", SOURCE))


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extras(sourced().discovery, "it.toml")
    monkeypatch.setitem(search.NEEDS, "dns", ("no_such_module_here", "dns"))
    with pytest.raises(
        ConfigError, match=r"it.toml: discovery.dns.fast needs the extra dns; install it with: "
    ):
        require_extras(sourced().discovery, "it.toml")
    require_extras(config().discovery, "it.toml")


def addresses(channel: Channel) -> list[list[object]]:
    message = channel.receive()
    assert message is not None
    assert (message.kind, message.fields["place"]) == ("found", ["dns", "fast"])
    return list(message.fields["addresses"])


def told(channel: Channel) -> tuple[str, dict[str, object]]:
    message = channel.receive()
    assert message is not None
    assert message.fields.pop("place") == ["dns", "fast"]
    return message.kind, message.fields


async def test_only_news_are_told_in_a_fixed_order_and_no_more_than_can_be_used() -> None:
    ours, theirs = Channel.pair()
    teller = Teller(theirs, ("dns", "fast"))
    one, two = Address("10.0.0.1", 1), Address("10.0.0.2", 1)
    for found in ([one, two], [two, one, one]):
        await teller.found(found)
    assert addresses(ours) == [["10.0.0.1", 1, "", 1.0, 0], ["10.0.0.2", 1, "", 1.0, 0]]
    assert told(ours) == ("same", {})
    await teller.lost("timeout", "no answer")
    assert told(ours) == ("lost", {"reason": "timeout", "trouble": "no answer"})
    await teller.found([one, two])
    assert len(addresses(ours)) == 2
    await teller.watched("dropped")
    assert told(ours) == ("watched", {"ended": "dropped"})
    await teller.found([Address("10.0.0.1", port) for port in range(1, MAX_SERVERS + 9)])
    assert len(addresses(ours)) == MAX_SERVERS
    with pytest.raises(BlockingIOError):
        ours.receive()
    ours.close()
    theirs.close()


def test_the_time_to_live_of_an_answer_holds_within_the_bounds_of_the_source() -> None:
    source = DnsSource.model_validate({**SOURCE, "refresh_min_seconds": 2.0, "refresh_max_seconds": 60.0})
    assert [within_bounds(ttl_s, source) for ttl_s in (0, 30, 3600)] == [2.0, 30, 60.0]
