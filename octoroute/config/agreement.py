"""The rules between keys: names, aliases, weights of a group, TLS files.

They look at the file's own tree, not at the structs, so that their problems are told together with those of
single keys. What a single key's rule has refused already is passed over here.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from octoroute.config.problems import place, shown
from octoroute.config.references import References, is_reference
from octoroute.config.schema import TIERS, Model
from octoroute.config.wording import did_you_mean

RESERVED: Final = ("auto", *TIERS)

_RESERVED_WORDS: Final = f"{', '.join(RESERVED)} are octoroute's own model names, in any case; choose another"

Tree = Mapping[str, Any]
ServerPath = tuple[str, str, int]


def disagreements(tree: Tree, references: References) -> list[str]:
    """One sentence per problem."""
    servers = list(_servers(tree))
    names = [(path, _text(server.get("name"), references)) for path, server in servers]
    return [
        *_tls_halves(tree),
        *_reserved_names(names, tree),
        *_names_in_two_tiers(names, tree),
        *_weight_totals(servers),
        *_fallbacks(tree, references),
        *_aliases(tree, [name for _, name in names], references),
    ]


def _servers(tree: Tree) -> Iterator[tuple[ServerPath, Tree]]:
    models = _table(tree.get("models"))
    for tier in TIERS:
        servers = models.get(tier)
        for position, server in enumerate(servers if isinstance(servers, list) else []):
            yield ("models", tier, position), _table(server)


def _table(value: Any) -> Tree:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any, references: References) -> str | None:
    """The text that a value stands for, if it can be told."""
    if not isinstance(value, str):
        return None
    found = references.look_up(value)
    return None if found.trouble else found.text


def _tls_halves(tree: Tree) -> Iterator[str]:
    server = _table(tree.get("server"))
    halves = ("tls_cert", "tls_key")
    for given, absent in (halves, halves[::-1]):
        if server.get(given) and not server.get(absent):
            yield f"server.{given} is given but server.{absent} is not; HTTPS needs both, plain HTTP none"


def _reserved_names(names: list[tuple[ServerPath, str | None]], tree: Tree) -> Iterator[str]:
    for path, name in names:
        if name is not None and name.casefold() in RESERVED:
            yield f"{place((*path, 'name'), tree)} is {shown((*path, 'name'), tree)}; {_RESERVED_WORDS}"


def _names_in_two_tiers(names: list[tuple[ServerPath, str | None]], tree: Tree) -> Iterator[str]:
    """Told once for each further tier, not for each replica in it."""
    first: dict[str, ServerPath] = {}
    told: set[tuple[str, str]] = set()
    for path, name in names:
        if not name:
            continue
        home = first.setdefault(name, path)
        if home[1] != path[1] and (name, path[1]) not in told:
            told.add((name, path[1]))
            yield (
                f"{place((*path, 'name'), tree)} is {shown((*path, 'name'), tree)}, "
                f"the name of {place(home, tree)} too; a name may repeat inside a tier, never in two tiers"
            )


def _weight_totals(servers: list[tuple[ServerPath, Tree]]) -> Iterator[str]:
    """Each weight is finite, but their sum may not be, and then no share can be told."""
    totals: dict[tuple[str, int], float] = {}
    for (_, tier, _), server in servers:
        weight = server.get("weight", Model.model_fields["weight"].default)
        priority = server.get("priority", Model.model_fields["priority"].default)
        if isinstance(priority, int):
            totals[tier, priority] = totals.get((tier, priority), 0.0) + _finite(weight)
    for (tier, priority), total in totals.items():
        if math.isinf(total):
            yield (
                f"models.{tier}: the weights of priority {priority} add up to more than a number can hold; "
                "use smaller weights"
            )


def _fallbacks(tree: Tree, references: References) -> Iterator[str]:
    tiers = _table(tree.get("tiers"))
    for tier in TIERS:
        others = _table(tiers.get(tier)).get("fallback")
        seen: set[str | None] = {tier}
        for position, other in enumerate(others if isinstance(others, list) else []):
            path = ("tiers", tier, "fallback", position)
            word = _text(other, references)
            if word in seen and word in TIERS:
                again = "the tier itself" if word == tier else "there already"
                told = f"{place(path, tree)} is {shown(path, tree)}, which is {again}"
                yield f"{told}; name other tiers, each once"
            seen.add(word)


def _finite(weight: Any) -> float:
    """The weight as a float; 0 if its own rule refuses it."""
    try:
        number = float(weight) if isinstance(weight, int | float) else 0.0
    except OverflowError:
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def _aliases(tree: Tree, names: list[str | None], references: References) -> Iterator[str]:
    aliases = _table(_table(tree.get("routing")).get("aliases"))
    known = list(dict.fromkeys(name for name in names if name))
    for alias, target in aliases.items():
        path = ("routing", "aliases", alias)
        if not alias:
            yield f"{place(path, tree)} has an empty name; write the name that clients send"
        elif alias.casefold() in RESERVED:
            yield f"{place(path, tree)} can't be an alias; {_RESERVED_WORDS}"
        elif alias in known:
            yield f"{place(path, tree)} can't be an alias: an endpoint has that name; choose another"
        text = _text(target, references)
        # Where an endpoint's name is missing or wrong, the target may be the name that was meant.
        if not text or text in (*RESERVED, *known) or not all(names):
            continue
        choices = (*RESERVED, *known)
        hint = " (it is an alias itself)" if text in aliases else did_you_mean(text, choices)
        its = "its value" if is_reference(target) else "it"
        yield (
            f"{place(path, tree)} is {shown(path, tree)}; "
            f'{its} must be "auto", a tier or an endpoint name{hint}'
        )
