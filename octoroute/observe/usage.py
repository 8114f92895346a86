"""Token counts out of the end of an answer, without decoding it.

Inside a JSON string a quote is escaped, so `"usage":{` can only be a key: no text of a model can pass for it.
"""

import re
from typing import Final

NONE: Final = (-1, -1)
# As llama.cpp, vLLM and OpenAI begin it: one match instead of three.
_USUAL: Final = re.compile(
    rb'"usage"\s*:\s*\{\s*"(prompt|completion)_tokens"\s*:\s*(\d{1,12})\s*,'
    rb'\s*(?:"total_tokens"\s*:\s*\d+\s*,\s*)?"(?:prompt|completion)_tokens"\s*:\s*(\d{1,12})'
)
_OBJECT: Final = re.compile(rb'"usage"\s*:\s*\{')
# Chat, completions, embeddings and rerank say prompt_ and completion_; /v1/responses and /v1/messages say
# input_ and output_.
_PROMPT: Final = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,12})')
_COMPLETION: Final = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,12})')
_REACH: Final = 4096  # bytes of a usage object that are looked at
# llama.cpp's, at the end of a stream that was not asked for a usage. The prompt is what its cache held of it
# and what it had to read.
_TIMINGS: Final = re.compile(
    rb'"timings"\s*:\s*\{\s*"cache_n"\s*:\s*(\d{1,12})\s*,\s*"prompt_n"\s*:\s*(\d{1,12})\s*,'
    rb'[^{}]{0,1000}?"predicted_n"\s*:\s*(\d{1,12})'
)


def tokens(tail: bytes) -> tuple[int, int]:
    """(prompt, completion) tokens of the last `usage` in `tail`, else of llama.cpp's `timings`; -1 for what
    it does not say.
    """
    at = tail.rfind(b'"usage"')
    if at >= 0 and (usual := _USUAL.match(tail, at)):
        which, first, second = usual.groups()
        return (int(first), int(second)) if which == b"prompt" else (int(second), int(first))
    while at >= 0:
        if _OBJECT.match(tail, at):
            prompt = _PROMPT.search(tail, at, at + _REACH)
            completion = _COMPLETION.search(tail, at, at + _REACH)
            return int(prompt[1]) if prompt else -1, int(completion[1]) if completion else -1
        at = tail.rfind(b'"usage"', 0, at)
    at = tail.rfind(b'"timings"')
    if at >= 0 and (timings := _TIMINGS.match(tail, at)):
        cached, read, predicted = map(int, timings.groups())
        return cached + read, predicted
    return NONE
