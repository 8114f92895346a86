"""Bars as SVG, one panel for each figure, the shortest bar the best. No library: the file is text."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH: Final = 860
LABEL: Final = 130
BAR: Final = 15
GAP: Final = 5
HEADING: Final = 34
# A bar that is this many times the baseline's is cut, and says its number.
CUT: Final = 12.0
STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#24292f}.h{font-weight:600}.v{fill:#57606a}"
    "rect{fill:#8c959f}.ours{fill:#0969da}.base{fill:#57606a}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.v{fill:#8d96a0}}"
)


def chart(panels: Sequence[tuple[str, Mapping[str, float]]], *, ours: str, baseline: str) -> str:
    """`panels`: (title with its unit, gateway -> figure). Beside each figure stands its ratio to the
    baseline's.
    """
    parts: list[str] = []
    y = 0
    for title, figures in panels:
        y += HEADING
        parts.append(f'<text class="h" x="0" y="{y - 12}">{escape(title)}</text>')
        least = figures.get(baseline) or min(figures.values())
        widest = min(max(figures.values()), least * CUT)
        for name, figure in sorted(figures.items(), key=lambda item: item[1]):
            width = max(1.0, min(figure, widest) / widest * (WIDTH - LABEL - 150))
            kind = "ours" if name == ours else "base" if name == baseline else ""
            cut = " (cut)" if figure > widest else ""
            said = f"{figure:,.4g} · {figure / least:.2f}x{cut}"
            parts.append(f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
            parts.append(f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}"/>')
            parts.append(f'<text class="v" x="{LABEL + width + 6:.1f}" y="{y + 12}">{said}</text>')
            y += BAR + GAP
    height = y + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img"><style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )
