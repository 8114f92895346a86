"""What a check found, as a table for a terminal or for a page of Markdown."""

from collections import Counter
from collections.abc import Iterable, Sequence

from octoroute.demo.checking import CASES, Place, Row
from octoroute.demo.faults import FAULTS
from octoroute.demo.judging import MEANINGS, Judgement, Verdict

NOT_MET = "not met"
GAP = "  "


def heading(names: Iterable[str] = FAULTS) -> str:
    """The head of the table; `names` decide how wide its first column is."""
    return _line(names, "", *(f"{place.value}" if at == 0 else "" for place in Place for at in (0, 1))) + (
        "\n" + _line(names, "fault", *("stream" if case.stream else "plain" for case in CASES))
    )


def line(row: Row, names: Iterable[str] = FAULTS) -> str:
    """One row for a terminal."""
    return _line(names, row.name, *(_cell(row.judgements[case]) for case in CASES))


def _line(names: Iterable[str], name: str, *cells: str) -> str:
    wide = max(len(one.value) for one in Verdict) + 4
    return GAP.join([name.ljust(max(map(len, names))), *(cell.ljust(wide) for cell in cells)]).rstrip()


def _cell(found: Judgement | None) -> str:
    return NOT_MET if found is None else str(found)


def total(rows: Sequence[Row]) -> str:
    """How often each verdict was given, from best to worst."""
    found = [row.judgements[case] for row in rows for case in CASES]
    counts = Counter(one.verdict if one is not None else None for one in found)
    parts = [f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict]]
    if counts[None]:
        parts.append(f"{counts[None]} {NOT_MET}")
    return f"{len(rows)} faults, {len(found)} cases: {', '.join(parts)}."


def bad(rows: Iterable[Row]) -> list[str]:
    """The cases that misled a client or left it waiting."""
    return [
        f"{row.name}, {case}: {found}"
        for row in rows
        for case, found in row.judgements.items()
        if found is not None and found.verdict.is_bad
    ]


def markdown(rows: Sequence[Row]) -> str:
    """The table with all that is needed to read it."""
    lines = [
        "| fault | what the server does | one: plain | one: stream | both: plain | both: stream |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = " | ".join(_marked(row.judgements[case]) for case in CASES)
        lines.append(f"| `{row.name}` | {FAULTS[row.name].about} | {cells} |")
    seen = {one.verdict for row in rows for one in row.judgements.values() if one is not None}
    meanings = [f"- {verdict.value}: {MEANINGS[verdict]}" for verdict in Verdict if verdict in seen]
    return "\n".join([total(rows), "", *lines, "", *meanings]) + "\n"


def _marked(found: Judgement | None) -> str:
    return f"**{found}**" if found is not None and found.verdict.is_bad else _cell(found)
