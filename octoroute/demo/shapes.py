"""OpenAI's JSON shapes, as far as llama.cpp and vLLM agree on them: chunks, choices, usage.

Values in, dicts out; knows neither HTTP nor time.
"""

import zlib
from typing import Any

from octoroute.demo.answers import Asked, Choice


def object_of(asked: Asked) -> str:
    """What a streamed chunk calls itself."""
    return "chat.completion.chunk" if asked.chat else "text_completion"


def deltas(asked: Asked, one: Choice, position: int, token: str) -> list[dict[str, Any]]:
    """What changes with a token. The role comes before the first one, except before an emoji."""
    found: list[dict[str, Any]] = []
    if not asked.chat:
        return [{"text": token}]
    if position == 0 and ord(token[:1] or " ") < 0x10000:
        found.append({"role": "assistant", "content": None})
    if one.call is None:
        return [*found, {"content": asked.continued + token if asked.echoes and position == 0 else token}]
    if position == 0:
        function = {"name": one.call[0], "arguments": ""}
        found.append({"tool_calls": [{"index": 0, "id": "call_0", "type": "function", "function": function}]})
    return [*found, {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}]


def chunk(asked: Asked, index: int, delta: dict[str, Any]) -> dict[str, Any]:
    """A chunk object with one choice."""
    if asked.chat:
        body: dict[str, Any] = {"finish_reason": None, "index": index, "delta": delta}
    else:
        body = {"index": index, "logprobs": None, "finish_reason": None, **delta}
    return {"choices": [body], "object": object_of(asked)}


def finish(asked: Asked, index: int, finish_reason: str) -> dict[str, Any]:
    """The chunk that ends a choice: an empty delta and the reason."""
    ending = chunk(asked, index, {} if asked.chat else {"text": ""})
    ending["choices"][0]["finish_reason"] = finish_reason
    return ending


def usage_chunk(asked: Asked, choices: list[Choice]) -> dict[str, Any]:
    """The chunk without choices that `stream_options.include_usage` asks for."""
    return {"choices": [], "object": object_of(asked), "usage": usage(asked, choices)}


def usage(asked: Asked, choices: list[Choice]) -> dict[str, int]:
    """Exact: completion tokens are the tokens that were sent, of all choices."""
    completion = sum(len(one.tokens) for one in choices)
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": asked.prompt_tokens + completion,
    }


def timings(asked: Asked, predicted: int) -> dict[str, int]:
    """What llama.cpp adds to the last chunk, as far as it does not depend on time. Nothing is ever cached."""
    return {"cache_n": 0, "prompt_n": asked.prompt_tokens, "predicted_n": predicted}


def plain(asked: Asked, choices: list[Choice]) -> dict[str, Any]:
    """The body of a plain answer, without id and model."""
    entries: list[dict[str, Any]] = []
    for index, one in enumerate(choices):
        entry: dict[str, Any] = {"finish_reason": one.finish_reason, "index": index}
        if not asked.chat:
            entry |= {"text": one.text, "logprobs": None}
        elif one.call is None:
            text = asked.continued + one.text if asked.echoes else one.text
            entry["message"] = {"role": "assistant", "content": text}
        else:
            function = {"name": one.call[0], "arguments": one.call[1]}
            call = {"id": "call_0", "type": "function", "function": function}
            entry["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
        entries.append(entry)
    kind = "chat.completion" if asked.chat else "text_completion"
    return {"choices": entries, "object": kind, "usage": usage(asked, choices)}


def embeddings(model: str, given: Any) -> dict[str, Any]:
    """Eight numbers for each text, a function of the text."""
    texts = given if isinstance(given, list) else [given]
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": [zlib.crc32(f"{at}{one}".encode()) / 2**32 for at in range(8)],
        }
        for index, one in enumerate(texts)
    ]
    tokens = sum(max(1, len(str(one)) // 4) for one in texts)
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
