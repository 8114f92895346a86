"""Which plain requests llama.cpp answers the same way as a stream and as a whole. Pure.

A list of what is known, tried in tests/end_to_end/real/test_llama_plain.py; all else goes as it came.
"""

from collections.abc import Mapping
from typing import Any, Final

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"

# What a request may have, whatever the value: it changes what is said, not how. Missing on purpose:
# `n_indent` cuts text that a stream has sent; `reasoning_format` may mean something else for streams.
FREE: Final = frozenset(
    (
        *("model", "messages", "prompt", "stream", "stream_options", "user", "store", "metadata"),
        *("max_tokens", "max_completion_tokens", "n_predict", "stop", "seed", "logit_bias", "ignore_eos"),
        *("temperature", "top_p", "top_k", "min_p", "typical_p", "top_n_sigma", "min_keep", "samplers"),
        *("dynatemp_range", "dynatemp_exponent", "xtc_probability", "xtc_threshold"),
        *("mirostat", "mirostat_tau", "mirostat_eta", "adaptive_target", "adaptive_decay"),
        *("presence_penalty", "frequency_penalty", "repeat_penalty", "repeat_last_n"),
        *("dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers"),
        *("tools", "tool_choice", "parallel_tool_calls", "response_format", "json_schema", "grammar"),
        *("chat_template_kwargs", "reasoning_effort", "cache_prompt", "id_slot", "service_tier"),
        *("prompt_cache_key", "safety_identifier", "verbosity"),
    )
)
# What it may have if the value asks for nothing. `logprobs`: a stream leaves those of some tokens out.
IDLE: Final = frozenset(
    (
        *("logprobs", "top_logprobs", "n_probs", "post_sampling_probs", "return_tokens", "return_progress"),
        *("verbose", "echo", "suffix", "best_of", "response_fields"),
    )
)
ONE: Final = frozenset(("n", "n_cmpl"))


def may_stream(path: str, fields: Mapping[str, Any]) -> bool:
    """Whether the plain answer to a request of such a path can be put together from a stream's chunks."""
    if path == CHAT:
        messages = fields.get("messages")
        if not isinstance(messages, list) or not messages:
            return False
        # An answer that goes on from that message repeats it, or does not.
        if not isinstance(messages[-1], dict) or messages[-1].get("role") == "assistant":
            return False
    elif path != COMPLETIONS or not isinstance(fields.get("prompt"), str):
        return False
    if not isinstance(fields.get("stream_options"), dict | None) or fields.get("stop") == "":
        return False
    return all(
        name in FREE
        or (name in IDLE and not value)
        or (name in ONE and (value is None or (type(value) is int and value == 1)))
        for name, value in fields.items()
    )
