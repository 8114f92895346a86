"""Config text for client keys, and requests that carry one."""

from typing import Any

from tests.end_to_end.fleet import Tier, fleet_config, toml_value
from tests.end_to_end.wire_client import Reply, WireClient, chat

CHAT = "/v1/chat/completions"
ADMIN = "sk-operator"


def keyed_config(fast: Tier, *keys: dict[str, Any], auth: str = "", **more: Any) -> str:
    """A fleet's config with an admin's key and the given ones. `name` alone makes `sk-<name>` the key."""
    tables = [{"name": "operator", "key": ADMIN, "admin": True}]
    tables += [{"key": f"sk-{key['name']}"} | key for key in keys]
    text = [fleet_config(fast, **more), f"[auth]\n{auth}"]
    for table in tables:
        text.append("[[auth.keys]]")
        text += [f"{name} = {toml_value(value)}" for name, value in table.items()]
    return "\n".join(text) + "\n"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def converse_as(port: int, key: str, text: str = "hello", model: str = "fast", **more: Any) -> Reply:
    """One chat completion with a key, on a connection of its own."""
    async with WireClient(port) as client:
        client.post(CHAT, chat(text, model, **more), headers=bearer(key))
        return await client.reply()


async def get_as(port: int, key: str, path: str) -> Reply:
    async with WireClient(port) as client:
        client.get(path, headers=bearer(key))
        return await client.reply()
