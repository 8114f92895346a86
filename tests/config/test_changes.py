"""What a reload says it changes, and what it leaves."""

from typing import Any

from octoroute.config import Config, build
from octoroute.config.changes import reloaded


def config(*fast: dict[str, Any], server: dict[str, Any] | None = None, **sections: Any) -> Config:
    def model(name: str, **keys: Any) -> dict[str, Any]:
        return {"name": name, "base_url": f"http://{name}:1/v1", "max_tokens": 8, **keys}

    tree = {
        "server": {"host": "127.0.0.1", "port": 3000, **(server or {})},
        "routing": {"strategy": "rule"},
        "models": {
            "fast": [model(**keys) for keys in fast] or [model("one")],
            "balanced": [model("two")],
            "deep": [model("three")],
        },
        **sections,
    }
    return build(tree)


def test_nothing_changed() -> None:
    old = config()
    new, changes = reloaded(old, config())
    assert new == old
    assert str(changes) == "nothing changed"


def test_keys_are_named_by_their_path_and_without_their_values() -> None:
    _, changes = reloaded(config(), config(server={"max_messages": 3}, retry={"attempts": 7}))
    assert changes.keys == ("server.max_messages", "retry.attempts")
    assert str(changes) == "changed: server.max_messages, retry.attempts"


def test_servers_are_told_apart_by_name_and_address() -> None:
    old = config({"name": "stays"}, {"name": "goes"}, {"name": "moves"}, {"name": "grows"})
    new = config(
        {"name": "comes"},
        {"name": "grows", "weight": 2.0},
        {"name": "moves", "base_url": "http://elsewhere:1/v1"},
        {"name": "stays"},
    )
    _, changes = reloaded(old, new)
    assert changes.added == ("fast/comes", "fast/moves")
    assert changes.removed == ("fast/goes", "fast/moves")
    assert changes.changed == ("fast/grows",)


def test_one_of_two_equal_servers_may_go() -> None:
    _, changes = reloaded(config({"name": "twin"}, {"name": "twin"}), config({"name": "twin"}))
    assert (changes.added, changes.removed, changes.changed) == ((), ("fast/twin",), ())


def test_a_new_key_of_a_server_is_a_change_that_shows_no_secret() -> None:
    _, changes = reloaded(
        config({"name": "one", "api_key": "old-secret"}), config({"name": "one", "api_key": "new-secret"})
    )
    assert changes.changed == ("fast/one",)
    assert "secret" not in repr(changes)


def test_keys_that_need_a_restart_keep_their_value_and_are_named() -> None:
    old = config()
    new, changes = reloaded(
        old, config(server={"host": "::1", "port": 1, "workers": 2, "drain_seconds": 1.0})
    )
    assert changes.left == ("server.host", "server.port", "server.workers")
    assert changes.keys == ("server.drain_seconds",)
    assert (new.server.host, new.server.port, new.server.workers) == ("127.0.0.1", 3000, 1)
    assert new.server.drain_seconds == 1.0
