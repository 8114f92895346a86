"""Each server signs its list of models."""

import pytest

from octoroute.upstream.kind import told_kind


@pytest.mark.parametrize(
    ("owner", "kind"),
    [("llamacpp", "llama_cpp"), ("vllm", "vllm"), ("sglang", "sglang"), ("library", "ollama"), ("me", "")],
)
def test_the_kind_is_told_by_who_owns_the_models(owner: str, kind: str) -> None:
    body = b'{"object":"list","data":[{"id":"a","owned_by":"%b"}]}' % owner.encode()
    assert told_kind([(b"server", b"uvicorn")], body) == kind


def test_llama_cpp_names_itself_in_every_head() -> None:
    assert told_kind([(b"content-type", b"text/html"), (b"server", b"llama.cpp")], b"") == "llama_cpp"


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"{",
            b"[]",
            b"{}",
            b'{"data":{}}',
            b'{"data":["a"]}',
            b'{"data":[]}',
            b'{"data":[{"id":"a"}]}',
        ),
        *(b'{"data":[{"owned_by":"vllm"},{"owned_by":"sglang"}]}', b'{"data":[{"owned_by":null}]}'),
        b'{"data":[{"owned_by":["vllm"]}]}',
    ],
)
def test_what_is_no_signed_list_tells_nothing(body: bytes) -> None:
    assert told_kind([], body) == ""
