"""The requests of api.md and routing.md in docs/, sent as they stand, get the answers that stand there.

In an answer "..." stands for any value, and a line `...` for any lines.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import ROOT, fleet_config
from tests.end_to_end.wire_client import Reply, WireClient

ADDRESS = "http://localhost:3000"
PAGES = (ROOT / "docs" / "api.md", ROOT / "docs" / "routing.md")


def examples(page: Path) -> Iterator[tuple[str, str]]:
    """(command, answer) of each `console` block."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = example.splitlines()
            last = next(at for at, line in enumerate(lines) if not line.endswith("\\"))
            yield "\n".join(lines[: last + 1]), "\n".join(lines[last + 1 :])


EXAMPLES = [example for page in PAGES for example in examples(page)]


async def run_curl(command: str, port: int) -> Reply:
    """Does what curl would; only the options that the page uses."""
    name, *words = shlex.split(command.replace("\\\n", " "))
    assert name == "curl"
    headers: dict[str, str] = {}
    url, data = "", None
    for word in (rest := iter(words)):
        if word == "-H":
            header, _, value = next(rest).partition(": ")
            headers[header] = value
        elif word == "-d":
            data = next(rest).encode()
        elif word != "-N":
            assert word.startswith(ADDRESS), f"not known here: {word}"
            url = word.removeprefix(ADDRESS)
    async with WireClient(port) as client:
        if data is None:
            client.get(url)
        else:
            client.post(url, body=data, headers=headers)
        return await client.reply()


def same(told: Any, got: Any) -> bool:
    if told == "...":
        return True
    if isinstance(told, dict) and isinstance(got, dict):
        return told.keys() == got.keys() and all(same(told[key], got[key]) for key in told)
    if isinstance(told, list) and isinstance(got, list):
        return len(told) == len(got) and all(map(same, told, got))
    return type(told) is type(got) and bool(told == got)


def same_lines(told: list[str], got: list[str]) -> bool:
    if not told or not got:
        return all(line == "..." for line in told) and not got
    if told[0] == "...":
        return any(same_lines(told[1:], got[at:]) for at in range(len(got) + 1))
    mark = "data: {"
    if told[0].startswith(mark) and got[0].startswith(mark):
        return same(orjson.loads(told[0][6:]), orjson.loads(got[0][6:])) and same_lines(told[1:], got[1:])
    return told[0] == got[0] and same_lines(told[1:], got[1:])


@pytest.mark.parametrize(("command", "answer"), EXAMPLES, ids=[command[5:60] for command, _ in EXAMPLES])
async def test_an_example_is_answered_as_the_page_says(
    serve: StartServer, gateway: StartGateway, command: str, answer: str
) -> None:
    config = fleet_config(
        [await serve("llama_cpp", "qwen3-8b")],
        [await serve("vllm", "qwen3-30b")],
        [await serve("vllm", "gpt-oss-120b")],
        routing={"aliases": {"gpt-4o": "deep"}},
    )
    reply = await run_curl(command, (await gateway(config)).port)
    text = reply.body.decode()
    if answer.startswith("data: "):
        assert same_lines(answer.splitlines(), text.rstrip("\n").splitlines()), text
    else:
        assert same(orjson.loads(answer), orjson.loads(text)), text


async def test_the_request_of_the_readme_is_answered_with_a_stream(
    serve: StartServer, gateway: StartGateway
) -> None:
    [command] = re.findall(r"^curl .*?[^\\]$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    one = await gateway(fleet_config([await serve("llama_cpp", "qwen3-8b")]))
    reply = await run_curl(command, one.port)
    assert (reply.status, reply.headers["x-octoroute-tier"]) == (200, "fast")
    assert reply.body.endswith(b"data: [DONE]\n\n")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 7
