"""`octoroute doctor` in front of simulated servers."""

import asyncio
import sys
from pathlib import Path

import pytest
import tomli

from octoroute.doctor import run
from octoroute.errors import ConfigError
from tests.end_to_end.conftest import StartServer
from tests.end_to_end.fleet import ROOT, endpoint, fleet_config
from tests.end_to_end.ports import free_port


async def doctor(*urls: str, config: Path = Path(), tier: str = "fast", api_key: str = "") -> tuple[int, str]:
    """Exit code and what is printed, as the command line has it."""
    text, code = await asyncio.to_thread(run, urls, config=config, tier=tier, api_key=api_key)
    return code, text


async def test_two_kinds_of_server_are_told_apart_and_their_tables_are_a_config(serve: StartServer) -> None:
    llama, vllm = await serve("llama_cpp", "qwen3-8b", slots=3), await serve("vllm", "qwen3-30b")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "octoroute", "doctor", "--tier", "balanced"),
        *(llama.base_url, vllm.base_url.removesuffix("/v1")),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    out = (await process.communicate())[0].decode()
    assert process.returncode == 0
    first, second = tomli.loads(out)["models"]["balanced"]
    assert first == {"name": "qwen3-8b", "base_url": llama.base_url, "max_tokens": 4096, "kind": "llama_cpp"}
    assert second == {"name": "qwen3-30b", "base_url": vllm.base_url, "max_tokens": 4096, "kind": "vllm"}
    of_llama, of_vllm = out.split("\n\n")
    for line in (
        "slots        3,",
        "HEAD /models 200",
        "GET /slots",
        "closed after a stream",
        "continuation accepted",
    ):
        assert line in of_llama
    for line in (
        "32768 tokens",
        "HEAD /models 405",
        "GET /metrics",
        "kept after a stream",
        "continuation accepted",
    ):
        assert line in of_vllm
    for line in ("usage told", "first event after"):
        assert line in of_llama
        assert line in of_vllm


async def test_the_servers_of_a_config_are_looked_at_with_its_keys_which_are_not_shown(
    serve: StartServer, tmp_path: Path
) -> None:
    server = await serve("vllm", "small", api_key="sk-hidden")
    path = tmp_path / "config.toml"
    path.write_text(fleet_config([endpoint(server, api_key="sk-hidden", kind="llama_cpp", model="other")]))
    code, out = await doctor(config=path)
    assert code == 1  # nobody listens for the other tiers
    assert "# It is fast/small in the config." in out
    assert '# Beware: its kind there is "llama_cpp".' in out
    assert 'Beware: the config asks it for "other", which it does not have.' in out
    assert out.count("it can't be reached") == 2
    assert "sk-hidden" not in out
    assert tomli.loads(out) == {}


async def test_keys_are_given_by_reference_only(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_KEY", "sk-hidden")
    server = await serve("llama_cpp", "small", api_key="sk-hidden")
    code, out = await doctor(server.base_url)
    assert (code, "GET /v1/models answers 401; it needs a key" in out) == (1, True)
    code, out = await doctor(server.base_url, api_key="env:SMALL_KEY")
    assert code == 0
    assert tomli.loads(out)["models"]["fast"][0]["api_key"] == "env:SMALL_KEY"
    assert "sk-hidden" not in out
    with pytest.raises(ConfigError, match="write env:NAME or file:PATH") as raised:
        await doctor(server.base_url, api_key="sk-hidden")
    assert "sk-hidden" not in str(raised.value)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        await doctor(server.base_url, api_key="env:NO_SUCH_KEY")


async def test_a_server_that_sleeps_is_sent_no_chat(serve: StartServer) -> None:
    for kind in ("vllm", "llama_cpp"):
        server = await serve(kind, "small")
        server.engine.sleep()
        code, out = await doctor(server.base_url)
        assert (code, "asleep       yes, so it was sent no chat" in out) == (0, True)
        assert not server.completions
        assert server.engine.asleep


async def test_what_is_no_model_server_is_told_and_ends_with_1(serve: StartServer) -> None:
    failing = await serve("vllm", "small", fault="status-500")
    code, out = await doctor(failing.base_url, f"127.0.0.1:{free_port()}")
    assert code == 1
    assert "a chat answers 500" in out or "GET /v1/models answers 500" in out
    assert "it can't be reached" in out
    with pytest.raises(ConfigError, match="it is not the URL of a server"):
        await doctor("ftp://gpu-1")
