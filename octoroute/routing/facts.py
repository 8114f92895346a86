"""What a request's text says about it: how long it is, what the user asked, which task that looks like.

Works on the decoded body of any route, by the fields present, and never raises: a shape that makes no sense
counts as no text (validation is the server's job). The length is exact and costs nothing per character. The
task type is judged from a bounded look: the first and the last EDGE characters of what the user asked.
Instructions stand at either end of a long prompt; the middle is the material.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from octoroute._keywords import Keywords
from octoroute.exchange import Facts, length_of

CHARACTERS_PER_TOKEN: Final = 4
# Both ends make the 2,048 tokens up to which the rules tell lengths apart: shorter texts are seen whole.
# Looking costs about 2 us per 1,000 characters, and a prompt of 10 MB costs what one of 8 kB does.
EDGE: Final = 4_096

# First match wins, so the order is part of the rule.
KEYWORDS: Final = (
    ("code", ("code", "function", "implement", "```", "programming", "debug")),
    ("deep_analysis", ("analyze", "analysis", "compare", "evaluate")),
    ("creative_writing", ("write a story", "creative", "poem", "fiction")),
    ("document_summary", ("summarize", "summary", "tldr")),
    ("casual_chat", ("hello", "hi ", "hey ")),
)
_keywords: Final = Keywords([words for _, words in KEYWORDS])
CASUAL_OPENING: Final = "how are"
OTHERWISE: Final = "question_answer"

# Where the routes keep their text, and who speaks there. The conversation comes last: its last user message
# is the one that was asked, whatever stands beside it.
FIELDS: Final = (
    ("system", "system"),  # /v1/messages
    ("instructions", "system"),  # /v1/responses
    ("documents", "document"),  # /v1/rerank
    ("query", "user"),  # /v1/rerank
    ("content", "user"),  # /tokenize
    ("tokens", "user"),  # /detokenize
    ("message", "user"),  # /chat
    ("prompt", "user"),  # /v1/completions
    ("input", "user"),  # /v1/embeddings, /v1/responses
    ("messages", "user"),  # /v1/chat/completions, /v1/messages
)
CONVERSATIONS: Final = frozenset({"input", "messages"})

# item, content, part, the parts of a tool's result, one of them: nothing honest nests deeper. Bounded, so
# that a body of nested lists can't exhaust the stack.
MAX_DEPTH: Final = 5


# What one speaker said: role, the pieces of text, the number of tokens that came as numbers. A bare tuple,
# because there may be thousands.
Passage = tuple[str, Sequence[str], int]


class Reading(NamedTuple):
    """`tokens` is the estimate for all; `asked` are the texts of the last user message that has any."""

    tokens: int
    asked: Sequence[str]


def passages(fields: Mapping[str, Any]) -> Iterator[Passage]:
    """All text of a request in the order in which a model reads it, per message where there are messages."""
    for name, speaker in FIELDS:
        value = fields.get(name)
        if value is None:
            continue
        if name not in CONVERSATIONS or type(value) is not list or _are_ids(value):
            yield _passage(speaker, value)
            continue
        for item in value:
            if type(item) is not dict:
                yield _passage(speaker, item)
                continue
            role, content = item.get("role"), item.get("content")
            if type(role) is not str:
                role = ""
            # Nearly every message is a plain string.
            if type(content) is str:
                yield role, (content,) if content else (), 0
            else:
                yield _passage(role, item)


def read_text(fields: Mapping[str, Any], lengths: tuple[int, ...] = ()) -> Reading:
    """One pass over the request's text. `lengths` are those of the strings that are abridged in it."""
    characters = ids = 0
    asked: Sequence[str] = ()
    for role, texts, numbers in passages(fields):
        for text in texts:
            characters += length_of(text, lengths)
        ids += numbers
        if texts and role == "user":
            asked = texts
    return Reading(characters // CHARACTERS_PER_TOKEN + ids, asked)


def infer_task_type(asked: Sequence[str]) -> str:
    """The first task type with a keyword in what the user asked, lower-cased, within the bounded look."""
    text = _look(asked)
    found = _keywords.find(text)
    if found >= 0:
        return KEYWORDS[found][0]
    return "casual_chat" if text[: len(CASUAL_OPENING)].lower() == CASUAL_OPENING else OTHERWISE


def facts_of(reading: Reading, importance: str, task_type: str | None = None) -> Facts:
    """What the rules look at. A given `task_type` spares the look at the text."""
    return Facts(reading.tokens, importance, task_type or infer_task_type(reading.asked))


def opening(texts: Iterable[str], limit: int) -> str:
    """The first `limit` characters of the texts, one per line, without joining more than that."""
    return "\n".join(_take(texts, limit))[:limit]


def _look(asked: Sequence[str]) -> str:
    if sum(map(len, asked)) <= 2 * EDGE:
        return "\n".join(asked)
    ending: list[str] = []
    room = EDGE
    for text in reversed(asked):
        ending.append(text[-room:])
        room -= len(text)
        if room <= 0:
            break
    # No keyword holds a line feed, so none can arise where the two ends meet.
    return "\n".join([*_take(asked, EDGE), *reversed(ending)])


def _take(texts: Iterable[str], room: int) -> Iterator[str]:
    for text in texts:
        yield text[:room]
        room -= len(text)
        if room <= 0:
            return


def _passage(role: str, content: object) -> Passage:
    texts: list[str] = []
    ids = _collect(content, texts, MAX_DEPTH)
    return role, texts, ids


def _collect(content: object, texts: list[str], depth: int) -> int:
    """Appends the text in `content` to `texts`; the answer is the number of tokens that came as numbers."""
    if isinstance(content, str):
        if content:
            texts.append(content)
        return 0
    if isinstance(content, list):
        if _are_ids(content):
            return len(content)
        if not depth:
            return 0
        ids = 0
        for part in content:
            # Nearly every part is a dict with a text.
            text = part.get("text") if type(part) is dict else None
            if type(text) is str and text:
                texts.append(text)
            else:
                ids += _collect(part, texts, depth - 1)
        return ids
    if isinstance(content, dict) and depth:
        for name in ("text", "content", "output"):
            if name in content:
                return _collect(content[name], texts, depth - 1)
    return 0


def _are_ids(content: list[Any]) -> bool:
    # The first decides for all: a prompt of tokens may hold millions.
    return bool(content) and type(content[0]) is int
