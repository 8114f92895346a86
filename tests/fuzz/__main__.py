"""Lets libFuzzer look for bytes that break a target, guided by what the readers do with them: `make fuzz`.

    scripts/variant fuzz [SECONDS] [TARGET]

What it finds stays in build/fuzz; put it into corpus/TARGET, so that the tests keep it. atheris counts what
Python executes; counters.c, compiled into the readers of the variant `fuzz`, what they do.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    name, *flags = sys.argv[1:]
    atheris: Any = import_module("atheris")
    # The counters in the readers register there as soon as a reader is imported.
    os.environ["FUZZER"] = str(import_module("atheris.core_with_libfuzzer").__file__)

    from tests.fuzz.targets import TARGETS

    found = Path(f"found-{name}")
    found.mkdir(exist_ok=True)
    atheris.Setup([sys.argv[0], *flags, str(found), str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
