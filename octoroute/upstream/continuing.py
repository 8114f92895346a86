"""Which streams can be continued by another server, and what that server is asked then. Pure.

The text so far becomes the beginning of the assistant's message, which the server is told not to close:
`continue_final_message` without `add_generation_prompt`, as vLLM and SGLang call it. llama.cpp knows the
names too; older ones go on from a last message of the assistant anyway. Completions continue their prompt.
"""

from collections.abc import Mapping
from typing import Any, Final

from octoroute.upstream.transcript import REASONING, Transcript

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
# Servers that continue a chat's last message.
CONTINUING_KINDS: Final = frozenset(("llama_cpp", "vllm", "sglang"))
# Those of them that can be given reasoning text to go on from.
REASONING_KINDS: Final = frozenset(("llama_cpp",))
LIMITS: Final = ("max_tokens", "max_completion_tokens", "n_predict")

# With any of these the rest of an answer depends on more than its text so far (a grammar's state, other
# choices), or the chunks hold more than text. `None`, false, 0 and empty values forbid nothing, nor do those
# of HARMLESS.
FORBIDDING: Final = frozenset(
    (
        *("n", "best_of", "use_beam_search", "n_cmpl", "echo", "suffix", "prediction", "audio", "modalities"),
        *("logprobs", "top_logprobs", "prompt_logprobs", "n_probs", "return_tokens", "return_token_ids"),
        *("return_logprob", "return_progress", "return_hidden_states", "prompt_embeds", "verbose"),
        *("response_format", "grammar", "json_schema", "structured_outputs", "regex", "ebnf"),
        *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag"),
        *("tool_choice", "functions", "function_call", "reasoning_budget_tokens"),
    )
)
HARMLESS: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "n_cmpl": (1,),
    "best_of": (1,),
    "tool_choice": ("auto", "none"),
    "modalities": (["text"],),
    "reasoning_budget_tokens": (-1,),
    "response_format": ({"type": "text"},),
}


def may_continue(path: str, fields: Mapping[str, Any]) -> bool:
    """Whether a stream that was asked for so could be continued elsewhere at all."""
    if path == CHAT:
        if not isinstance(fields.get("messages"), list):
            return False
    elif path != COMPLETIONS or not isinstance(fields.get("prompt"), str):
        return False
    if FORBIDDING.isdisjoint(fields):
        return True
    return all(
        not fields[name] or fields[name] in HARMLESS.get(name, ()) for name in FORBIDDING.intersection(fields)
    )


def wants_usage(fields: Mapping[str, Any]) -> bool:
    """Whether the stream has to tell its usage."""
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def asked_limit(fields: Mapping[str, Any], default: int) -> int:
    """Most tokens of the answer; `default` is what the first server was told where the request is silent."""
    limits = [value for name in LIMITS if isinstance(value := fields.get(name), int) and value > 0]
    return min(limits) if limits else default


def continuation(
    path: str, fields: Mapping[str, Any], so_far: Transcript, kind: str
) -> dict[str, Any] | None:
    """The fields of the request that asks for the rest; None where that can't be asked."""
    asked = dict(fields)
    if not so_far.text and not so_far.reasoning:
        return asked
    if path == COMPLETIONS:
        asked["prompt"] = fields["prompt"] + so_far.text
        return asked
    messages = list(fields["messages"])
    beginning: dict[str, Any] = {"role": "assistant", "content": so_far.text}
    if so_far.reasoning:
        # As llama.cpp calls it, whoever wrote it: nobody else is asked.
        beginning[REASONING[0]] = so_far.reasoning
    last = messages[-1]
    # llama.cpp goes on from it anyway, the others when they are told to.
    goes_on = kind == "llama_cpp" or fields.get("continue_final_message") is True
    if goes_on and last.get("role") == "assistant":
        content = last.get("content")
        if not isinstance(content, str) or last.get("tool_calls") or so_far.reasoning:
            return None
        # llama.cpp begins its answer with that message; what was delivered then has it already.
        repeated = kind == "llama_cpp" and so_far.text.startswith(content)
        beginning = {**last, "content": so_far.text if repeated else content + so_far.text}
        messages.pop()
    asked["messages"] = [*messages, beginning]
    asked["continue_final_message"] = True
    asked["add_generation_prompt"] = False
    return asked


def limit_to(asked: dict[str, Any], limit: int, spent: int) -> None:
    """Lets a request have `limit` more tokens; `spent` it has had."""
    named = [name for name in LIMITS if isinstance(asked.get(name), int) and asked[name] > 0]
    for name in named or LIMITS[:1]:
        asked[name] = limit
    least = asked.get("min_tokens")
    if isinstance(least, int):
        asked["min_tokens"] = max(0, least - spent)
