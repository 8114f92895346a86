"""What deciding costs, per call: `python benchmarks/micro/bench_routing.py`. The best of five runs each."""

import timeit
from collections.abc import Callable

from octoroute.exchange import RequestView
from octoroute.routing.decide import build_table, decide
from octoroute.routing.unknown_model import unknown_model

MB = 1_000_000


def view(model: str, text: str) -> RequestView:
    fields = {"model": model, "messages": [{"role": "user", "content": text}]}
    return RequestView("r-1", "/v1/chat/completions", b"", fields, model, stream=False)


def nanoseconds(call: Callable[[], object]) -> float:
    timer = timeit.Timer(call)
    number, _ = timer.autorange()
    return min(timer.repeat(repeat=5, number=number)) / number * 1e9


def main() -> None:
    fleet = [("fast", f"model-{number}", 1) for number in range(1_000)]
    rule = build_table(fleet, strategy="rule", aliases={"gpt-4o": "deep"})
    llm = build_table(fleet, strategy="llm")
    small = "Please debug this: print('hello')"
    plain = "z" * (10 * MB)
    wide = "\N{ROCKET}" * (10 * MB)
    parts = view("auto", "")
    parts.fields["messages"] = [
        {"role": "user", "content": [{"type": "text", "text": "z" * 100}] * 100} for _ in range(1_000)
    ]
    cases: dict[str, Callable[[], object]] = {
        "named tier": lambda: decide(named, rule),
        "named endpoint of 1,000": lambda: decide(endpoint, rule),
        "alias": lambda: decide(alias, rule),
        "auto, rule, small prompt": lambda: decide(auto, rule),
        "auto, question, small prompt": lambda: decide(auto, llm),
        "auto, rule, 10 MB of ASCII": lambda: decide(ascii_text, rule),
        "auto, rule, 10 M wide characters": lambda: decide(wide_text, rule),
        "auto, question, 10 MB of ASCII": lambda: decide(ascii_text, llm),
        "auto, rule, 10 MB in 100,000 parts": lambda: decide(parts, rule),
        "unknown model of 1,000": lambda: unknown_model("model-X", rule.models),
    }
    named, endpoint, alias = view("deep", small), view("model-500", small), view("gpt-4o", small)
    auto, ascii_text, wide_text = view("auto", small), view("auto", plain), view("auto", wide)
    for name, call in cases.items():
        print(f"{name:38}{nanoseconds(call):14,.0f} ns")


if __name__ == "__main__":
    main()
