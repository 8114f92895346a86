"""What the doctor prints is valid TOML whatever was found, and its tables are valid config."""

import tomli
from hypothesis import given
from hypothesis import strategies as st

from octoroute.doctor.examine import Findings, Server
from octoroute.doctor.report import report, table, toml

SERVER = Server("http://gpu-1:8080/v1")
LLAMA = Findings(
    kind="llama_cpp",
    models=["/models/qwen3-8b.gguf"],
    model="/models/qwen3-8b.gguf",
    get_status=200,
    head_status=200,
    slots=4,
    context_tokens=2048,
    load="/slots",
    ttft_ms=53.2,
    tells_usage=True,
    continues=True,
)


def test_a_llama_cpp_is_described_in_full() -> None:
    assert report(SERVER, LLAMA, table("deep", SERVER, LLAMA, "env:KEY")) == (
        "# http://gpu-1:8080/v1: llama_cpp\n"
        '#   models       "/models/qwen3-8b.gguf"\n'
        "#   slots        4, so as many requests at once\n"
        "#   context      2048 tokens for each slot\n"
        "#   probe        GET /models 200, HEAD /models 200\n"
        "#   load         told by GET /slots\n"
        "#   stream       first event after 53 ms, usage told\n"
        "#   keep-alive   closed after a stream\n"
        "#   continuation accepted\n"
        "[[models.deep]]\n"
        'name = "qwen3-8b"\n'
        'model = "/models/qwen3-8b.gguf"\n'
        'base_url = "http://gpu-1:8080/v1"\n'
        "max_tokens = 1024\n"
        'kind = "llama_cpp"\n'
        'api_key = "env:KEY"\n'
    )


def test_a_server_with_a_problem_has_no_table() -> None:
    assert report(SERVER, Findings("it can't be reached: refused"), "[[x]]") == (
        "# http://gpu-1:8080/v1: it can't be reached: refused\n"
    )


def test_a_model_that_the_config_asks_for_in_vain_is_told() -> None:
    found = Findings(kind="vllm", models=["a"], model="a")
    assert 'Beware: the config asks it for "b"' in report(Server("http://h/v1", model="b"), found, "")
    assert "Beware" not in report(Server("http://h/v1", model="a"), found, "")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_is_written_as_toml(text: str) -> None:
    assert tomli.loads(f"a = {toml(text)}") == {"a": text}
    found = Findings(models=[text], model=text)
    written = tomli.loads(report(SERVER, found, table("fast", SERVER, found)))
    assert written["models"]["fast"][0].get("model", written["models"]["fast"][0]["name"]) in (
        text,
        "gpu-1:8080",
    )
