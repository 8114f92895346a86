"""Token counts out of answers as real servers write them."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute._usage import tokens

NONE = (-1, -1)


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b'{"choices":[],"usage":{"completion_tokens":7,"prompt_tokens":5,"total_tokens":12}}', (5, 7)),
        (b'{"usage": {"prompt_tokens": 5, "total_tokens": 12, "completion_tokens": 7}}', (5, 7)),
        (b'{"object":"list","data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}', (8, -1)),
        (
            b'{"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":3},"output_tokens":4}}',
            (9, 4),
        ),
        (
            b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
            (1, 2),
        ),
        (
            b'{"usage":{"prompt_tokens":1}}\n\ndata: {"usage":{"prompt_tokens":1,"completion_tokens":9}}',
            (1, 9),
        ),
        (b'data: {"usage":{"prompt_tokens":1,"completion_tokens":9}}\n\ndata: {"usage":null}', (1, 9)),
        (b'{"usage":{"prompt_tokens":6,"completion_tokens":0}}', (6, 0)),
        (
            b'data: {"choices":[],"timings":{"cache_n":30,"prompt_n":2,"prompt_ms":593.7,'
            b'"prompt_per_token_ms":18.5,"predicted_n":3,"predicted_ms":125.5}}\n\ndata: [DONE]\n\n',
            (32, 3),
        ),
        (b'{"usage":{"prompt_tokens":1,"completion_tokens":2},"timings":{"cache_n":9,"prompt_n":9', (1, 2)),
        (b'{"timings":{"prompt_n":2,"predicted_n":3}}', NONE),
        (b'{"choices":[{"message":{"content":"usage"}}]}', NONE),
        (b'{"usage":null}', NONE),
        (b'{"usage"', NONE),
        (b"", NONE),
    ],
)
def test_usage_is_found_as_servers_write_it(tail: bytes, expected: tuple[int, int]) -> None:
    assert tokens(tail) == expected


@given(st.text())
def test_no_text_of_a_model_passes_for_usage(text: str) -> None:
    for content in (text, '"usage":{"prompt_tokens":1}', f'{text}"usage": {{"completion_tokens":3}}'):
        assert tokens(orjson.dumps({"choices": [{"message": {"content": content}}]})) == NONE


@given(st.binary())
def test_any_bytes_are_survived(tail: bytes) -> None:
    assert len(tokens(b'"usage":{' + tail)) == 2
