"""What servers say of their load, as real ones say it, and what is not sense."""

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute.upstream.signals import NAMES, Load, Props, read_metrics, read_props, read_slots, samples

VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="smol {a} b"} 3.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
vllm:num_requests_waiting{engine="0",model_name="smol {a} b"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="smol {a} b"} 0.42
vllm:engine_sleep_state{engine="0",model_name="smol",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="0",model_name="smol",sleep_state="weights_offloaded"} 0.0
vllm:prompt_tokens_created{engine="0"} 1.7e+09
"""
SGLANG = b"""\
sglang:num_running_reqs{model_name="m"} 5.0
sglang:num_queue_reqs{model_name="m"} 1.0
sglang:token_usage{model_name="m"} 0.9
"""


def test_what_vllm_says() -> None:
    assert read_metrics(VLLM, NAMES["vllm"]) == Load(3, 2, 0.42)


def test_what_sglang_says() -> None:
    assert read_metrics(SGLANG, NAMES["sglang"]) == Load(5, 1, 0.9)


def test_an_older_vllm_names_its_cache_differently() -> None:
    older = VLLM.replace(b"kv_cache_usage", b"gpu_cache_usage")
    assert read_metrics(older, NAMES["vllm"]) == Load(3, 2, 0.42)


def test_a_vllm_that_is_not_awake_sleeps() -> None:
    asleep = VLLM.replace(b'"awake"} 1.0', b'"awake"} 0.0')
    assert read_metrics(asleep, NAMES["vllm"]) == Load(3, 2, 0.42, asleep=True)


def test_of_several_engines_requests_are_added_the_fullest_cache_counts_and_one_awake_is_enough() -> None:
    other = VLLM.replace(b'engine="0"', b'engine="1"').replace(b"0.42", b"0.61").replace(b"} 1.0", b"} 0.0")
    assert read_metrics(VLLM + other, NAMES["vllm"]) == Load(6, 4, 0.61)


@pytest.mark.parametrize(
    "body", [b"", b"vllm:num_requests_running", b"<html>", SGLANG, VLLM.replace(b" 3.0", b" x")]
)
def test_what_does_not_tell_how_many_requests_run_is_no_load(body: bytes) -> None:
    assert read_metrics(body, NAMES["vllm"]) is None


def test_samples_are_whole_names_at_the_beginning_of_a_line_with_finite_values() -> None:
    text = b'a 1\nab 2\n# a 3\na{x="}"} 4 1700000000\na NaN\na +Inf\na\na -5'
    assert list(samples(text, b"a")) == [(b"", 1.0), (b'{x="}"', 4.0), (b"", -5.0)]


def test_figures_that_are_no_sense_are_bounded() -> None:
    wild = VLLM.replace(b"} 3.0", b"} 1e99").replace(b"} 2.0", b"} -4").replace(b"0.42", b"17")
    assert read_metrics(wild, NAMES["vllm"]) == Load(1_000_000, 0, 1.0)


def test_what_llama_cpp_says() -> None:
    props = {"default_generation_settings": {"n_ctx": 8192}, "total_slots": 4, "is_sleeping": False}
    assert read_props(orjson.dumps(props)) == Props(4, 8192, asleep=False)
    assert read_props(orjson.dumps(props | {"is_sleeping": True})) == Props(4, 8192, asleep=True)
    assert read_props(b'{"total_slots": 1}') == Props(1, 0, asleep=False)
    slots = [{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}]
    assert read_slots(orjson.dumps(slots)) == Load(1)
    assert read_slots(b"[]") == Load(0)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b"17", b'{"total_slots": null}', b'{"total_slots": []}', b'"x"']
)
def test_what_is_something_else_is_none(body: bytes) -> None:
    assert read_props(body) is None
    assert read_slots(body) is None


@given(st.binary(max_size=60), st.lists(st.sampled_from([b"a", b"a{", b"}", b" ", b"\n", b"1", b"nan"])))
def test_any_bytes_are_survived(junk: bytes, tokens: list[bytes]) -> None:
    read_props(junk)
    read_slots(junk)
    for _, value in samples(b"".join(tokens), b"a"):
        assert math.isfinite(value)
