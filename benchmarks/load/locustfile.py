"""Users of a gateway, for locust: short chats, long streams, big prompts. `make bench-locust` starts it all.

Against a gateway of your own: `locust -f benchmarks/load/locustfile.py --host http://gateway:3000`. The model
is `auto`, or OCTOROUTE_MODEL; a key comes from OCTOROUTE_KEY. A stream counts as failed unless `[DONE]` was
its last event. Time to first token is a row of its own, under the name `first token: ...`.
"""

import os
import time
from typing import Any, Final

from locust import HttpUser, between, task
from locust.clients import ResponseContextManager

MODEL: Final = os.environ.get("OCTOROUTE_MODEL", "auto")
KEY: Final = os.environ.get("OCTOROUTE_KEY", "")
PATH: Final = "/v1/chat/completions"
BIG_PROMPT: Final = "The quick brown fox jumps over the lazy dog. " * 1500  # 66 KB
DONE: Final = b"data: [DONE]"


class Chatting(HttpUser):
    """What they share: the requests, and how an answer is judged."""

    abstract = True
    wait_time = between(0.5, 1.5)

    def chat(self, name: str, prompt: str) -> None:
        with self._ask(name, prompt, stream=False) as answer:
            if answer.status_code == 200 and not answer.json()["choices"][0]["message"]["content"]:
                answer.failure("an empty answer")

    def stream(self, name: str, prompt: str) -> None:
        began = time.perf_counter()
        first = 0.0
        last = b""
        with self._ask(name, prompt, stream=True) as answer:
            if answer.status_code != 200:
                return
            for line in answer.iter_lines():
                if line.startswith(b"data:"):
                    last = line
                    if not first and b'"content"' in line:
                        first = time.perf_counter() - began
            # By itself locust takes the time until the head.
            answer.request_meta["response_time"] = (time.perf_counter() - began) * 1000
            if last != DONE:
                answer.failure(f"the stream ended with {last[:80]!r}")
                return
        self.environment.events.request.fire(
            request_type="SSE",
            name=f"first token: {name}",
            response_time=first * 1000,
            response_length=0,
            exception=None,
            context={},
        )

    def _ask(self, name: str, prompt: str, *, stream: bool) -> ResponseContextManager:
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
            "stream": stream,
        }
        headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}
        return self.client.post(
            PATH, json=body, headers=headers, name=name, stream=stream, catch_response=True
        )


class ShortChats(Chatting):
    weight = 6

    @task
    def ask(self) -> None:
        self.chat("short chat", "hello, what is six times seven?")


class LongStreams(Chatting):
    weight = 3

    @task
    def read(self) -> None:
        self.stream(
            "long stream", "Compare two ways to sort a list. [chunks=100 gap_us=20000 first_us=50000]"
        )


class BigPrompts(Chatting):
    weight = 1

    @task
    def summarize(self) -> None:
        prompt = f"Summarize this: {BIG_PROMPT} [chunks=20 gap_us=20000 first_us=200000]"
        self.stream("big prompt", prompt)
