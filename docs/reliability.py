"""Writes the table of docs/reliability.md: every fault through a gateway of our own. Takes about two minutes.

The words around the table stand in the page itself. tests/test_documentation.py sees to it that the page has
every fault.
"""

import asyncio
import sys
from pathlib import Path

from octoroute.commands.fault_check import Options, check
from octoroute.demo import FAULTS
from octoroute.demo.checking import Row
from octoroute.demo.report import bad, heading, line, markdown, total

PAGE = Path(__file__).parent / "reliability.md"
BEGIN = "<!-- Made by `make reliability` from here -->\n"
END = "<!-- to here -->\n"
PATIENCE_S = 30.0


def main() -> int:
    def tell(row: Row) -> None:
        print(line(row), flush=True)

    print(heading(), flush=True)
    rows = asyncio.run(check(Options(names=list(FAULTS), patience_s=PATIENCE_S), tell))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{markdown(rows)}\n{END}{after}", encoding="utf-8")
    print(f"\n{total(rows)}")
    return 1 if bad(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
