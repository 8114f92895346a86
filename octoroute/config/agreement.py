"""The rules between keys: names, aliases, keys, weights of a group, TLS files.

They look at the file's own tree, not at the structs, so that their problems are told together with those of
single keys. What a single key's rule has refused already is passed over here.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from octoroute.config.describe import Path
from octoroute.config.problems import place, shown
from octoroute.config.references import References, is_reference
from octoroute.config.section import TIERS
from octoroute.config.servers import Model
from octoroute.config.sources import Discovery, DnsSource
from octoroute.config.wording import did_you_mean, key_path, nearest, value_shown

RESERVED: Final = ("auto", *TIERS)

_RESERVED_WORDS: Final = f"{', '.join(RESERVED)} are octoroute's own model names, in any case; choose another"

Tree = Mapping[str, Any]
# Where a server or a source stands, and its tier.
Spot = tuple[Path, str]
# Where the table of a client's key stands.
KeyPath = tuple[str, str, int]


def disagreements(tree: Tree, references: References) -> list[str]:
    """One sentence per problem."""
    servers, sources = list(_servers(tree)), list(_sources(tree))
    names = [(spot, _text(table.get("name"), references)) for spot, table in (*servers, *sources)]
    return [
        *_tls_halves(tree),
        *_empty_tiers(tree, {tier for (_, tier), _ in (*servers, *sources)}),
        *_ways_of_looking(sources, references),
        *_reserved_names(names, tree),
        *_names_in_two_tiers(names, tree),
        *_weight_totals(servers),
        *_fallbacks(tree, references),
        *_keys(tree, references),
        *_aliases(tree, [name for _, name in names], references),
    ]


def _servers(tree: Tree) -> Iterator[tuple[Spot, Tree]]:
    models = _table(tree.get("models"))
    for tier in TIERS:
        servers = models.get(tier)
        for position, server in enumerate(servers if isinstance(servers, list) else []):
            yield (("models", tier, position), tier), _table(server)


def _sources(tree: Tree) -> Iterator[tuple[Spot, Tree]]:
    discovery = _table(tree.get("discovery"))
    for kind in Discovery.model_fields:
        tiers = _table(discovery.get(kind))
        for tier in TIERS:
            if isinstance(tiers.get(tier), Mapping):
                yield (("discovery", kind, tier), tier), tiers[tier]


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


def _empty_tiers(tree: Tree, filled: set[str]) -> Iterator[str]:
    """Told where the key's own rule has nothing to say: it is absent, or an empty array."""
    models = tree.get("models", {})
    if not isinstance(models, Mapping) or _is_misspelt("models", tree):
        return
    if not models and not filled:
        yield "models is missing; it must be a table with servers for each tier, such as [[models.fast]]"
        return
    for tier in TIERS:
        if tier not in filled and models.get(tier, []) == [] and not _is_misspelt(tier, models):
            is_ = "is missing" if tier not in models else "is empty"
            yield (
                f"models.{tier} {is_}; it must be an array of at least one table, each written "
                f"[[models.{tier}]], unless [discovery] has a source for the tier"
            )


def _is_misspelt(key: str, table: Tree) -> bool:
    """Whether the key is not there but one that is near: that is told already."""
    return key not in table and any(nearest(other, (key,)) for other in table)


def _ways_of_looking(sources: list[tuple[Spot, Tree]], references: References) -> Iterator[str]:
    for (path, _), source in sources:
        where = key_path(path)
        url = _text(source.get("base_url"), references) or ""
        if _text(source.get("records"), references) == "srv" and re.search(r":\d+/", url):
            yield f'{where}.base_url has a port, but with records = "srv" the ports come from the records'
        low = source.get("refresh_min_seconds", DnsSource.model_fields["refresh_min_seconds"].default)
        high = source.get("refresh_max_seconds", DnsSource.model_fields["refresh_max_seconds"].default)
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            yield (
                f"{where}.refresh_min_seconds is {value_shown(low)}, "
                f"more than refresh_max_seconds, which is {value_shown(high)}"
            )


def _reserved_names(names: list[tuple[Spot, str | None]], tree: Tree) -> Iterator[str]:
    for (path, _), name in names:
        if name is not None and name.casefold() in RESERVED:
            yield f"{place((*path, 'name'), tree)} is {shown((*path, 'name'), tree)}; {_RESERVED_WORDS}"


def _names_in_two_tiers(names: list[tuple[Spot, str | None]], tree: Tree) -> Iterator[str]:
    """Told once for each further tier, not for each replica in it."""
    first: dict[str, Spot] = {}
    told: set[tuple[str, str]] = set()
    for (path, tier), name in names:
        if not name:
            continue
        home, home_tier = first.setdefault(name, (path, tier))
        if home_tier != tier and (name, tier) not in told:
            told.add((name, tier))
            yield (
                f"{place((*path, 'name'), tree)} is {shown((*path, 'name'), tree)}, "
                f"the name of {place(home, tree)} too; a name may repeat inside a tier, never in two tiers"
            )


def _weight_totals(servers: list[tuple[Spot, Tree]]) -> Iterator[str]:
    """Each weight is finite, but their sum may not be, and then no share can be told."""
    totals: dict[tuple[str, int], float] = {}
    for (_, tier), server in servers:
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


def _keys(tree: Tree, references: References) -> Iterator[str]:
    """Each client key is given in one form, and no two have a name or the key itself in common."""
    entries = _table(tree.get("auth")).get("keys")
    names: dict[str, KeyPath] = {}
    digests: dict[str, KeyPath] = {}
    for position, value in enumerate(entries if isinstance(entries, list) else []):
        path: KeyPath = ("auth", "keys", position)
        entry = _table(value)
        forms = [form for form in ("key", "key_sha256") if form in entry]
        if isinstance(value, Mapping) and len(forms) != 1:
            has = "both key and key_sha256" if forms else "neither key nor key_sha256"
            yield f"{place(path, tree)} has {has}; it needs one of them"
        name = _text(entry.get("name"), references)
        if name and names.setdefault(name, path) != path:
            yield (
                f"{place((*path, 'name'), tree)} is {shown((*path, 'name'), tree)}, "
                f"the name of {place(names[name], tree)} too; each key needs a name of its own"
            )
        for form in forms:
            text = _text(entry[form], references)
            if not text:
                continue
            digest = text.lower() if form == "key_sha256" else hashlib.sha256(text.encode()).hexdigest()
            if digests.setdefault(digest, path) != path:
                yield f"{place((*path, form), tree)} is the key of {place(digests[digest], tree)} too"


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
