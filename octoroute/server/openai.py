"""Bodies of the OpenAI API: what is checked before a request goes on, and the model list.

Only what octoroute 1.0 promised to check is checked. Everything else, known or not, goes to the server as it
came: the server knows its own parameters better than a gateway does.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import orjson

from octoroute.errors import InvalidRequest
from octoroute.exchange import length_of

# By field: lowest, highest, whether the lowest is itself allowed.
RANGES: Final = {
    "temperature": (0.0, 2.0, True),
    "top_p": (0.0, 1.0, False),
    "presence_penalty": (-2.0, 2.0, True),
    "frequency_penalty": (-2.0, 2.0, True),
}
# Their content must say something; an assistant's or a tool's may be empty.
SPEAKERS: Final = ("user", "system", "developer")


def parse_body(body: bytes) -> dict[str, Any]:
    """The body as an object. Raises InvalidRequest."""
    try:
        fields = orjson.loads(body)
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {json_type(fields)}", code="invalid_json")
    return fields


def check_chat(
    fields: dict[str, Any], max_messages: int, max_content_chars: int, lengths: tuple[int, ...] = ()
) -> None:
    """Checks the messages and numbers of a chat request. `null` means absent. `lengths` are those of the
    strings that are abridged in it. Raises InvalidRequest with `param`.
    """
    messages = fields.get("messages")
    if messages is None:
        raise InvalidRequest("messages is missing", param="messages", code="missing_required_parameter")
    if not isinstance(messages, list):
        raise InvalidRequest(f"messages must be an array, not {json_type(messages)}", param="messages")
    if not messages:
        raise InvalidRequest("messages must not be empty", param="messages")
    if len(messages) > max_messages:
        raise InvalidRequest(
            f"messages has {len(messages)} entries; at most {max_messages} are allowed", param="messages"
        )
    chars = 0
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidRequest(
                f"messages[{at}] must be an object, not {json_type(message)}", param=f"messages[{at}]"
            )
        content = message.get("content")
        if isinstance(content, str):
            chars += length_of(content, lengths)
            blank = not content or content.isspace()
        elif isinstance(content, list):
            count, blank = _measure_parts(content, lengths)
            chars += count
        elif content is None:
            blank = True
        else:
            raise InvalidRequest(
                f"messages[{at}].content must be a string or an array, not {json_type(content)}",
                param=f"messages[{at}].content",
            )
        if blank and message.get("role") in SPEAKERS:
            raise InvalidRequest(
                f"messages[{at}].content must not be blank for the role {message['role']}",
                param=f"messages[{at}].content",
            )
    if chars > max_content_chars:
        raise InvalidRequest(
            f"the messages hold {chars} characters; at most {max_content_chars} are allowed", param="messages"
        )
    check_numbers(fields)


def _measure_parts(content: list[Any], lengths: tuple[int, ...]) -> tuple[int, bool]:
    """How many characters the parts of a message hold, and whether they say nothing."""
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    said = [text for text in texts if isinstance(text, str)]
    blank = len(texts) == len(content) and not any(text.strip() for text in said)
    return sum([length_of(text, lengths) for text in said]), blank


def check_prompt(fields: dict[str, Any]) -> None:
    """Checks what a request to /v1/completions can't do without. Raises InvalidRequest with `param`."""
    prompt = fields.get("prompt")
    if prompt is None:
        raise InvalidRequest("prompt is missing", param="prompt", code="missing_required_parameter")
    if not isinstance(prompt, str | list):
        raise InvalidRequest(f"prompt must be a string or an array, not {json_type(prompt)}", param="prompt")


def check_numbers(fields: dict[str, Any]) -> None:
    """Checks the numbers whose ranges OpenAI's API fixes. Raises InvalidRequest with `param`."""
    for name, check in CHECKS.items():
        value = fields.get(name)
        if value is not None:
            check(name, value)


def _check_range(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"{name} must be a number, not {json_type(value)}", param=name)
    low, high, closed = RANGES[name]
    # Written so that NaN fails too.
    if not (low <= value <= high and (closed or value > low)):
        allowed = f"{low:g} to {high:g}" if closed else f"above {low:g}, up to {high:g}"
        raise InvalidRequest(f"{name} is {value}; allowed: {allowed}", param=name)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"{name} must be an integer, not {json_type(value)}", param=name)
    if value <= 0:
        raise InvalidRequest(f"{name} is {value}; allowed: 1 or more", param=name)


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false, not {json_type(value)}", param=name)


CHECKS: Final[dict[str, Callable[[str, Any], None]]] = {
    **dict.fromkeys(RANGES, _check_range),
    "max_tokens": _check_count,
    "max_completion_tokens": _check_count,
    "stream": _check_bool,
}


def model_list(tiers: Iterable[str], endpoints: Iterable[str]) -> bytes:
    """The body of GET /v1/models: `auto` and the tiers, then the endpoint names, each once."""
    entries = [model_entry(name, "octoroute") for name in ("auto", *tiers)]
    entries += [model_entry(name, "user") for name in dict.fromkeys(endpoints)]
    return orjson.dumps({"object": "list", "data": entries})


def model_entry(name: str, owner: str) -> dict[str, Any]:
    """One model of the list."""
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def json_type(value: object) -> str:
    """What JSON calls the type of a decoded value."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
