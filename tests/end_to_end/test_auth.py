"""Who gets in with which key, who does not, and where keys never go."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from octoroute.demo import Request, SimulatedServer
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import ROOT, Gateway, endpoint, fleet_config
from tests.end_to_end.keys import ADMIN, CHAT, bearer, converse_as, get_as, keyed_config
from tests.end_to_end.processes import rewrite
from tests.end_to_end.wire_client import WireClient, ask, chat, converse

KEY = "sk-team-a"
OPEN = ("/health",)
INFERENCE = (
    *(CHAT, "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/responses", "/v1/messages"),
    *("/tokenize", "/detokenize", "/chat"),
)
LISTS = ("/v1/models", "/v1/models/auto", "/models")
OPERATORS_POSTS = ("/admin/reload", "/admin/endpoints/fast/qwen3-8b/drain", "/admin/endpoints/fast/x/weight")
OPERATORS_GETS = ("/metrics", "/admin/status", "/admin/recent")


@dataclass
class Fleet:
    server: SimulatedServer
    gateway: Gateway

    @property
    def port(self) -> int:
        return self.gateway.port


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(serve_module: StartServer, gateway_module: StartGateway) -> Fleet:
    server = await serve_module("vllm", api_key="server-secret")
    keys = ({"name": "team-a"}, {"name": "small", "tiers": ["fast"]})
    config = keyed_config([endpoint(server, api_key="server-secret")], *keys)
    return Fleet(server, await gateway_module(config))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"AUTHORIZATION": f"BEARER   {KEY}"},
        {"x-api-key": KEY},
        {"api-key": KEY},
        {"authorization": "Basic dGVhbTphYWE=", "x-api-key": KEY},
    ],
    ids=str,
)
async def test_a_key_opens_in_every_header_that_clients_send_it_in(
    fleet: Fleet, headers: dict[str, str]
) -> None:
    async with WireClient(fleet.port) as client:
        client.post(CHAT, chat(), headers=headers)
        assert (await client.reply()).status == 200


STRANGERS: list[list[tuple[str, bytes]]] = [
    [],
    [("authorization", b"")],
    [("authorization", b"Bearer")],
    [("authorization", b"Bearer ")],
    [("authorization", KEY.encode())],
    [("authorization", f"Basic {KEY}".encode())],
    [("authorization", f"Bearer {KEY[:-1]}".encode())],
    [("authorization", f"Bearer {KEY}x".encode())],
    [("authorization", f"Bearer {KEY} x".encode())],
    [("authorization", f"Bearer {KEY.upper()}".encode())],
    [("authorization", f"Bearer {KEY},{KEY}".encode())],
    [("authorization", b"Bearer team-a")],
    [("authorization", b"Bearer *")],
    [("authorization", b"Bearer server-secret")],
    [("authorization", b"Bearer " + b"k" * 16_000)],
    [("authorization", b"Bearer \xff\xfe\x80")],
    [("authorization", "Bearer sk-téam-ä".encode())],
    [("authorization", b"Bearer x"), ("authorization", f"Bearer {KEY}".encode())],
    [("authorization", f"Bearer {KEY}".encode()), ("authorization", b"Bearer x")],
    [("authorization", b"Bearer x"), ("x-api-key", KEY.encode())],
    [("x-api-key", b"")],
    [("x-api-key", f"Bearer {KEY}".encode())],
    [("x-api-key", KEY.encode()), ("x-api-key", KEY.encode())],
    [("proxy-authorization", f"Bearer {KEY}".encode())],
    [("cookie", f"authorization=Bearer {KEY}".encode())],
    [("key", KEY.encode())],
]


@pytest.mark.parametrize("lines", STRANGERS, ids=lambda lines: str(lines)[:60])
async def test_a_stranger_does_not_get_in(fleet: Fleet, lines: list[tuple[str, bytes]]) -> None:
    before = len(fleet.server.completions)
    body = b'{"model":"fast","messages":[{"role":"user","content":"hello"}]}'
    head = b"POST %b HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n" % CHAT.encode()
    head += b"".join(b"%b: %b\r\n" % (name.encode(), value) for name, value in lines)
    async with WireClient(fleet.port) as client:
        client.send_raw(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        reply = await client.unasked_reply()
    assert reply.status == 401
    assert (reply.error["type"], reply.error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert KEY.encode() not in reply.body
    assert len(fleet.server.completions) == before


async def test_the_key_in_the_url_or_the_body_is_no_key(fleet: Fleet) -> None:
    for path in (f"{CHAT}?key={KEY}", f"{CHAT}?api_key={KEY}&api-key={KEY}"):
        assert (await ask(fleet.port, path, chat(api_key=KEY))).status == 401


@pytest.mark.parametrize("path", [*INFERENCE, *OPERATORS_POSTS])
async def test_no_route_is_open_without_a_key(fleet: Fleet, path: str) -> None:
    assert (await ask(fleet.port, path, chat())).status == 401


@pytest.mark.parametrize("path", [*LISTS, *OPERATORS_GETS, "/metrics?x=/health", "/health/../metrics"])
async def test_no_page_is_open_without_a_key(fleet: Fleet, path: str) -> None:
    for method in ("GET", "HEAD"):
        async with WireClient(fleet.port) as client:
            client.get(path, method)
            assert (await client.reply()).status in (401, 404)


async def test_health_is_open_and_so_is_what_the_config_makes_public(
    fleet: Fleet, gateway: StartGateway
) -> None:
    for path in OPEN:
        assert (await get_as(fleet.port, "wrong", path)).status == 200
    one = await gateway(keyed_config([fleet.server], auth='public = ["/health", "/metrics"]'))
    assert (await get_as(one.port, "wrong", "/metrics")).status == 200
    assert (await get_as(one.port, "wrong", "/admin/status")).status == 401


async def test_what_belongs_to_operators_needs_the_key_of_an_admin(fleet: Fleet) -> None:
    for path in OPERATORS_GETS:
        reply = await get_as(fleet.port, KEY, path)
        assert (reply.status, reply.error["code"]) == (403, "insufficient_permissions")
        assert (await get_as(fleet.port, ADMIN, path)).status == 200
    for path in OPERATORS_POSTS:
        async with WireClient(fleet.port) as client:
            client.post(path, {"weight": 1.0}, headers=bearer(KEY))
            assert (await client.reply()).status == 403
    for path in LISTS:
        assert (await get_as(fleet.port, KEY, path)).status == 200


async def test_anthropics_clients_get_the_error_in_their_form(fleet: Fleet) -> None:
    reply = await ask(fleet.port, "/v1/messages", chat(max_tokens=5))
    assert reply.status == 401
    assert reply.json["type"] == "error"
    assert reply.json["error"]["type"] == "authentication_error"


async def test_a_stranger_is_answered_before_the_body_is_read(fleet: Fleet) -> None:
    async with WireClient(fleet.port) as client:
        client.send_raw(
            b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            b"content-length: 30000000\r\n\r\n{" % CHAT.encode()
        )
        reply = await client.unasked_reply()
        assert reply.status == 401
        assert reply.headers["connection"] == "close"
        assert await client.read_raw() == b""


async def test_a_stranger_that_asks_whether_to_go_on_is_told_no(fleet: Fleet) -> None:
    async with WireClient(fleet.port) as client:
        client.send_raw(
            b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n"
            b"content-length: 1000\r\n\r\n" % CHAT.encode()
        )
        reply = await client.unasked_reply()
    assert (reply.status, reply.interim) == (401, [])


async def test_a_connection_goes_on_after_a_wrong_key_and_has_none_of_its_own(fleet: Fleet) -> None:
    async with WireClient(fleet.port) as client:
        for key, status in ((KEY, 200), ("wrong", 401), (KEY, 200), ("", 401)):
            client.post(CHAT, chat(), headers=bearer(key) if key else {})
            assert (await client.reply()).status == status


async def test_a_clients_key_goes_to_no_server_and_a_servers_key_to_no_client(fleet: Fleet) -> None:
    async with WireClient(fleet.port) as client:
        headers = {**bearer(KEY), "x-api-key": KEY, "api-key": KEY, "x-other": "kept"}
        client.post(CHAT, chat(), headers=headers)
        reply = await client.reply()
    asked = fleet.server.completions[-1]
    assert asked.header("authorization") == "Bearer server-secret"
    assert asked.header("x-other") == "kept"
    assert KEY not in str(asked.headers)
    fleet.server.manners._api_key = "another"
    try:
        refused = await converse_as(fleet.port, KEY)
    finally:
        fleet.server.manners._api_key = "server-secret"
    assert refused.status == 401
    for one in (reply, refused):
        assert "server-secret" not in str(one)
    assert KEY not in fleet.gateway.log
    assert "server-secret" not in fleet.gateway.log


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_repeats_its_key_or_sends_elsewhere_tells_clients_neither_key_nor_address(
    fleet: Fleet, stream: bool
) -> None:
    key = b"server-secret"
    echo = b'{"error":{"message":"Incorrect API key provided: %b"}}' % key
    elsewhere = b"http://127.0.0.1:%d/v1/other" % fleet.server.port
    answers = [
        (401, echo, b'WWW-Authenticate: Bearer realm="%b"' % key),
        (400, echo, b"X-Debug: Bearer %b" % key),
        (429, echo, b"Set-Cookie: key=%b" % key),
        (500, echo, b"Via: %b" % key),
        (307, b"", b"Location: %b" % elsewhere),
        (201, b"{}", b"Content-Location: %b" % elsewhere),
    ]
    said = answers[0]

    def play(_request: Request) -> Iterator[bytes]:
        status, body, line = said
        yield b"HTTP/1.1 %d Said\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (status, line, len(body), body)

    fleet.server.script(play)
    try:
        async with WireClient(fleet.port) as client:
            for said in answers:
                status, body, _ = said
                client.post(CHAT, chat(stream=stream), headers=bearer(KEY))
                reply = await client.reply()
                assert reply.status == (502 if status == 500 else status)
                assert "server-secret" not in str(reply)
                assert "127.0.0.1" not in str(reply)
                assert (b"[key]" in reply.body) == bool(body == echo)
    finally:
        fleet.server.script(None)


async def test_a_key_is_good_for_its_tiers_only(serve: StartServer, gateway: StartGateway) -> None:
    fast, deep = await serve("vllm", "small-8b"), await serve("vllm", "large-120b")
    keys = ({"name": "team-a"}, {"name": "small", "tiers": ["fast"]})
    one = await gateway(keyed_config([fast], *keys, deep=[deep]))
    for model in ("deep", "large-120b", "DEEP"):
        reply = await converse_as(one.port, "sk-small", model=model)
        assert reply.status == 403
        assert (reply.error["code"], reply.error["param"]) == ("model_not_found", "model")
        assert (await converse_as(one.port, KEY, model=model)).status == 200
    poem = await converse_as(one.port, "sk-small", "write a story about the sea", "auto")
    assert (poem.status, poem.headers["x-octoroute-tier"]) == (200, "fast")
    assert poem.headers["x-octoroute-reason"].endswith(";key")
    assert "may not use the tier deep" in poem.headers["x-octoroute-warning"]
    asked = await converse_as(one.port, KEY, "write a story about the sea", "auto")
    assert asked.headers["x-octoroute-tier"] == "deep"
    assert "tenant=small model=auto tier=fast" in await until_logged(one, "tenant=small model=auto")


async def test_no_tier_stands_in_that_a_key_is_not_good_for(
    serve: StartServer, gateway: StartGateway
) -> None:
    fast = await serve("vllm", "small-8b", fault="storm-503")
    deep = await serve("vllm", "large-120b")
    keys = ({"name": "team-a"}, {"name": "small", "tiers": ["fast"]})
    config = keyed_config([fast], *keys, deep=[deep]) + '[tiers.fast]\nfallback = ["deep"]\n'
    one = await gateway(config)
    assert (await converse_as(one.port, "sk-small")).status >= 500
    assert deep.completions == []
    assert (await converse_as(one.port, KEY)).status == 200


async def test_keys_come_and_go_with_a_reload(fleet: Fleet, gateway: StartGateway) -> None:
    bare = fleet_config([endpoint(fleet.server, api_key="server-secret")])
    one = await gateway(bare)
    assert (await converse(one.port)).status == 200
    keyed = keyed_config([endpoint(fleet.server, api_key="server-secret")], {"name": "team-a"})
    rewrite(one, keyed)
    assert (await ask(one.port, "/admin/reload")).status == 200
    assert (await converse(one.port)).status == 401
    assert (await ask(one.port, "/admin/reload")).status == 401
    assert (await converse_as(one.port, KEY)).status == 200
    rewrite(one, bare)
    async with WireClient(one.port) as client:
        client.post("/admin/reload", headers=bearer(ADMIN))
        reply = await client.reply()
    assert (reply.status, reply.json["changed"]) == (200, ["auth.keys"])
    assert (await converse(one.port)).status == 200


async def test_octoroute_reload_takes_the_key_from_the_environment(
    fleet: Fleet, gateway: StartGateway
) -> None:
    one = await gateway(keyed_config([fleet.server], {"name": "team-a"}))

    async def reload(**environ: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "octoroute", "reload", "--config", str(one.folder / "config.toml")],
            cwd=ROOT,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )

    for environ, told in (
        ({}, "no API key was sent"),
        ({"OCTOROUTE_ADMIN_KEY": "wrong"}, "the API key is not known"),
        ({"OCTOROUTE_ADMIN_KEY": KEY}, "needs the key of an admin"),
        ({"OCTOROUTE_ADMIN_KEY": "a\nb"}, "is no line of ASCII text"),
    ):
        done = await reload(**environ)
        assert (done.returncode, done.stdout) == (1, "")
        assert told in done.stderr
        assert "OCTOROUTE_ADMIN_KEY" in done.stderr
    done = await reload(OCTOROUTE_ADMIN_KEY=ADMIN)
    assert (done.returncode, done.stdout) == (0, "1 of 1 workers use the new config.\n")


async def until_logged(one: Gateway, text: str) -> str:
    """The log, once a text is in it: lines are written ten times a second."""
    while text not in one.log:  # noqa: ASYNC110 - another process: no event to wait for
        await asyncio.sleep(0.02)
    return one.log
