"""The line between the supervisor and a worker."""

from pathlib import Path

import pytest

from octoroute.config import load
from octoroute.supervisor.channel import Channel, Message

EXAMPLE = Path(__file__).parents[2] / "examples" / "replicas.toml"


def test_messages_arrive_whole_and_in_order() -> None:
    ours, theirs = Channel.pair()
    assert ours.send("ask_reload", ask=1)
    assert ours.send("ready")
    assert theirs.receive() == Message("ask_reload", {"ask": 1})
    assert theirs.receive() == Message("ready")
    with pytest.raises(BlockingIOError):
        theirs.receive()
    ours.close()
    theirs.close()


def test_a_config_of_any_size_arrives_as_it_was() -> None:
    config = load(EXAMPLE)
    many = tuple(config.models.fast[0].model_copy(update={"name": f"name-{at}"}) for at in range(5000))
    large = config.model_copy(update={"models": config.models.model_copy(update={"fast": many})})
    ours, theirs = Channel.pair()
    assert ours.send("apply", large, generation=3)
    assert ours.send("apply", config, generation=4)
    assert theirs.receive() == Message("apply", {"generation": 3}, large)
    assert theirs.receive() == Message("apply", {"generation": 4}, config)
    ours.close()
    theirs.close()


def test_fields_of_any_size_arrive_too() -> None:
    addresses = [[f"10.0.{at // 256}.{at % 256}", 8080] for at in range(4096)]
    ours, theirs = Channel.pair()
    assert theirs.send("found", place=["dns", "fast"], addresses=addresses)
    assert ours.receive() == Message("found", {"place": ["dns", "fast"], "addresses": addresses})
    ours.close()
    theirs.close()


def test_the_end_of_one_side_is_seen_by_the_other_behind_its_last_words() -> None:
    ours, theirs = Channel.pair()
    theirs.send("retire")
    theirs.close()
    assert ours.receive() == Message("retire")
    assert ours.receive() is None
    assert not ours.send("ready")
    ours.close()


def test_a_side_that_does_not_read_does_not_hold_up_the_other() -> None:
    ours, theirs = Channel.pair()
    sent = 0
    while ours.send("ask_reload", ask=sent):
        sent += 1
    for at in range(sent):
        message = theirs.receive()
        assert message is not None
        assert message.fields == {"ask": at}
    ours.close()
    theirs.close()
