"""What was found of a server in words, and the config's table for it. All of it together is valid TOML."""

import json
from typing import Final
from urllib.parse import urlsplit

from octoroute.doctor.examine import Findings, Server

MAX_MODELS: Final = 10
USUAL_TOKENS: Final = 4096


def report(server: Server, found: Findings, table: str) -> str:
    """Comment lines, then the table if the server can be used."""
    if found.problem:
        return f"# {server.base_url}: {found.problem}\n"
    lines = [f"# {server.base_url}: {found.kind or 'of a kind that octoroute does not know'}"]
    lines += [f"#   {name:<13}{text}" for name, text in _rows(found)]
    if server.model and server.model not in found.models and found.kind != "llama_cpp":
        lines.append(
            f"#   Beware: the config asks it for {json.dumps(server.model)}, which it does not have."
        )
    return "\n".join(lines) + f"\n{table}"


def _rows(found: Findings) -> list[tuple[str, str]]:
    shown = ", ".join(json.dumps(model) for model in found.models[:MAX_MODELS])
    if len(found.models) > MAX_MODELS:
        shown += f" and {len(found.models) - MAX_MODELS} more"
    rows = [("models", shown)]
    if found.slots:
        rows.append(("slots", f"{found.slots}, so as many requests at once"))
    if found.context_tokens:
        rows.append(("context", f"{found.context_tokens} tokens" + (" for each slot" if found.slots else "")))
    rows.append(("probe", f"GET /models {found.get_status}, HEAD /models {found.head_status or 'no answer'}"))
    rows.append(
        ("load", f"told by GET {found.load}" if found.load else "not told; requests in flight are counted")
    )
    if found.asleep:
        rows.append(("asleep", "yes, so it was sent no chat"))
    elif found.chat_problem:
        rows.append(("chat", found.chat_problem))
    else:
        usage = "usage told" if found.tells_usage else "usage not told"
        rows.append(("stream", f"first event after {found.ttft_ms:.0f} ms, {usage}"))
        rows.append(
            ("keep-alive", "kept after a stream" if found.keeps_connection else "closed after a stream")
        )
        if found.continues is not None:
            rows.append(("continuation", "accepted" if found.continues else "refused"))
    return rows


def table(tier: str, server: Server, found: Findings, api_key: str = "") -> str:
    """`[[models.TIER]]` for a server that is in no config yet. `api_key` as it is to stand there."""
    # A llama.cpp without an alias calls its model by the path of its file.
    name = found.model.rpartition("/")[2].removesuffix(".gguf") if found.kind == "llama_cpp" else found.model
    name = name or urlsplit(server.base_url).netloc
    keys: dict[str, str | int] = {"name": name}
    if name != found.model:
        keys["model"] = found.model
    tokens = min(USUAL_TOKENS, found.context_tokens // 2) if found.context_tokens else USUAL_TOKENS
    keys |= {"base_url": server.base_url, "max_tokens": max(1, tokens)}
    if found.kind:
        keys["kind"] = found.kind
    if api_key:
        keys["api_key"] = api_key
    return f"[[models.{tier}]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in keys.items())


def toml(value: str | int) -> str:
    """A value as TOML: JSON's strings are strings there, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
