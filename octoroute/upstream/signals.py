"""What servers say of their load, read out of their answers. Pure: no I/O, no clock.

llama.cpp tells by GET /props and GET /slots, vLLM and SGLang by GET /metrics, of which only the lines that
are needed are looked at: it has thousands.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import orjson


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that run and that wait, and the share of the KV cache in use, 0 to 1.

    `asleep`: it takes requests, and they hang until someone wakes it.
    """

    running: int
    waiting: int = 0
    kv_use: float = 0.0
    asleep: bool = False


@dataclass(frozen=True, slots=True)
class Props:
    """Of a llama.cpp: requests that it works on at once, tokens of each. Asleep, a request wakes it."""

    slots: int
    context_tokens: int
    asleep: bool


@dataclass(frozen=True, slots=True)
class Names:
    """The metrics of one kind of server. Samples are added up; of `kv_use` the highest counts."""

    running: bytes
    waiting: bytes
    kv_use: tuple[bytes, ...]


NAMES: Final[Mapping[str, Names]] = {
    "vllm": Names(
        b"vllm:num_requests_running",
        b"vllm:num_requests_waiting",
        # As it was called before version 0.10.
        (b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"),
    ),
    "sglang": Names(b"sglang:num_running_reqs", b"sglang:num_queue_reqs", (b"sglang:token_usage",)),
}
SLEEP_STATE: Final = b"vllm:engine_sleep_state"
AWAKE: Final = b'sleep_state="awake"'
MOST: Final = 1_000_000  # requests; more is nonsense


def read_props(body: bytes) -> Props | None:
    """llama.cpp's GET /props; None if it is something else."""
    try:
        value = orjson.loads(body)
        settings = value.get("default_generation_settings") or {}
        return Props(
            _count(value["total_slots"]), _count(settings.get("n_ctx") or 0), bool(value.get("is_sleeping"))
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def read_slots(body: bytes) -> Load | None:
    """llama.cpp's GET /slots; None if it is something else."""
    try:
        slots = orjson.loads(body)
        return Load(sum(bool(slot["is_processing"]) for slot in slots)) if isinstance(slots, list) else None
    except (ValueError, TypeError, KeyError):
        return None


def read_metrics(body: bytes, names: Names) -> Load | None:
    """GET /metrics; None if it does not tell how many requests run."""
    running = [value for _, value in samples(body, names.running)]
    if not running:
        return None
    kv_use = next(
        (found for name in names.kv_use if (found := [value for _, value in samples(body, name)])), [0.0]
    )
    awake = [value for labels, value in samples(body, SLEEP_STATE) if AWAKE in labels]
    return Load(
        _count(sum(running)),
        _count(sum(value for _, value in samples(body, names.waiting))),
        min(max(0.0, *kv_use), 1.0),
        # With several engines, one that is awake answers.
        asleep=bool(awake) and not any(awake),
    )


def samples(body: bytes, name: bytes) -> Iterator[tuple[bytes, float]]:
    """The finite samples of a metric in a text exposition: labels as they stand there, value."""
    at = 0
    while (at := body.find(name, at)) >= 0:
        end = body.find(b"\n", at)
        if end < 0:
            end = len(body)
        line = body[at + len(name) : end]
        if (at == 0 or body[at - 1 : at] == b"\n") and line[:1] in (b"{", b" "):
            labels, _, rest = line.rpartition(b"}")
            try:
                value = float(rest.split()[0])
            except (ValueError, IndexError):
                value = math.nan
            if math.isfinite(value):
                yield labels, value
        at = end


def _count(value: float) -> int:
    return min(max(0, int(value)), MOST)
