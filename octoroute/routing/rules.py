"""The rule router: a table of named rules, the first that matches decides.

Data, not code: `explain` reads the same table and says what each rule asks for. Where one condition of 1.0
has several causes, each cause is a rule of its own with the same tier, so that a log line names the cause.
"""

from dataclasses import dataclass
from typing import Final

from octoroute.exchange import IMPORTANCES, TASK_TYPES, Facts

ANY_TASK: Final = frozenset(TASK_TYPES)
ANY_IMPORTANCE: Final = frozenset(IMPORTANCES)
ANY_LENGTH: Final = range(2**62)


@dataclass(frozen=True, slots=True)
class Rule:
    """Matches a request whose three facts are all allowed. Logs and headers show `rule:<name>`."""

    name: str
    tier: str
    task_types: frozenset[str] = ANY_TASK
    importances: frozenset[str] = ANY_IMPORTANCE
    tokens: range = ANY_LENGTH

    def misses(self, facts: Facts) -> list[str]:
        """The facts that keep this rule from matching, by name; empty where it matches."""
        missed = []
        if facts.task_type not in self.task_types:
            missed.append("task_type")
        if facts.importance not in self.importances:
            missed.append("importance")
        if facts.tokens not in self.tokens:
            missed.append("tokens")
        return missed


RULES: Final = (
    Rule(
        "casual_chat",
        "fast",
        task_types=frozenset({"casual_chat"}),
        importances=ANY_IMPORTANCE - {"high"},
        tokens=range(256),
    ),
    Rule(
        "high_importance",
        "deep",
        task_types=ANY_TASK - {"casual_chat"},
        importances=frozenset({"high"}),
    ),
    Rule("deep_analysis", "deep", task_types=frozenset({"deep_analysis"})),
    Rule("creative_writing", "deep", task_types=frozenset({"creative_writing"})),
    Rule("long_code", "deep", task_types=frozenset({"code"}), tokens=range(1025, ANY_LENGTH.stop)),
    Rule("code", "balanced", task_types=frozenset({"code"})),
    Rule("question_answer", "balanced", task_types=frozenset({"question_answer"}), tokens=range(200, 2048)),
    Rule("document_summary", "balanced", task_types=frozenset({"document_summary"}), tokens=range(200, 2048)),
)


def match(facts: Facts) -> tuple[str, str] | None:
    """(tier, rule name) of the first rule that matches; None where none does."""
    task_type, importance, tokens = facts.task_type, facts.importance, facts.tokens
    for rule in RULES:
        if task_type in rule.task_types and importance in rule.importances and tokens in rule.tokens:
            return rule.tier, rule.name
    return None
