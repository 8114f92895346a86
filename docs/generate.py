"""Writes docs/configuration.md from the schema of the config. `--check` compares, and fails on a difference.

The words about single keys stand in octoroute/config/schema.py; only the text around the tables is here.
"""

import argparse
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from octoroute.config.describe import Path as KeyPath
from octoroute.config.describe import kind_of, table_name, tables
from octoroute.config.section import Section
from octoroute.config.servers import Model
from octoroute.config.sources import Source
from octoroute.config.wording import value_shown

PAGE = Path(__file__).parent / "configuration.md"

HEAD = """\
# Configuration

<!-- Made from octoroute/config/schema.py: change it there, then run `python docs/generate.py`. -->

The config is one [TOML](https://toml.io) file, `config.toml` unless `--config` names another. A whole one:

```toml
[server]
host = "127.0.0.1"
port = 3000

[[models.fast]]
name = "qwen3-8b"
base_url = "http://localhost:8080/v1"
max_tokens = 4096

[[models.balanced]]
name = "qwen3-30b"
base_url = "http://localhost:8081/v1"
max_tokens = 8192

[[models.deep]]
name = "gpt-oss-120b"
base_url = "http://localhost:8082/v1"
max_tokens = 16384
api_key = "env:DEEP_SERVER_KEY"

[routing]
strategy = "hybrid"

[routing.aliases]
"gpt-4o" = "deep"
```

- `octoroute config -o config.toml` writes a file to start from, that explains every key. See `examples/` too.
- `octoroute check --config config.toml` tells all that is wrong with a file, or shows the servers in it.
- Each tier needs at least one `[[models.TIER]]`, or a source that finds some ([discovery](discovery.md)).
  Servers of the highest priority share requests by weight, the others are backups. A name may repeat inside
  a tier (replicas), never in two tiers.
- Without keys everybody may use the gateway; [auth.md](auth.md) tells how to give keys and limits.
- The names auto, fast, balanced and deep are octoroute's own, for endpoints and aliases alike.
- A key that octoroute doesn't know is an error.

## Values from elsewhere

Any text may be written as `"env:NAME"`, the environment variable NAME, or as `"file:PATH"`, the text of a
file less the line break at its end. A relative PATH begins at the folder of the config file. A variable or
file that is missing or empty is an error. This keeps secrets out of the config; problems with such a value
are told without showing it.
"""

NAMES: dict[KeyPath, str] = {
    ("models", "fast", 0): "`[[models.fast]]`, `[[models.balanced]]`, `[[models.deep]]`",
    ("auth", "keys", 0): "`[[auth.keys]]`",
    ("tiers", "fast"): "`[tiers.fast]`, `[tiers.balanced]`, `[tiers.deep]`",
    ("discovery", "dns", "fast"): "`[discovery.dns.fast]`, and so for the other tiers",
    ("discovery", "kubernetes", "fast"): "`[discovery.kubernetes.fast]`, and so for the other tiers",
}
# Tables that hold nothing but the same table for each tier.
BY_TIER = frozenset((("models",), ("tiers",), ("discovery", "dns"), ("discovery", "kubernetes")))


MEANINGS_OF_A_SERVER = {field.description for field in Model.model_fields.values()}
HEADINGS = "| key | value | default | meaning |\n| --- | --- | --- | --- |"


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_part(path, section) for path, section in tables() if _has_part(path))


def _has_part(path: KeyPath) -> bool:
    """The keys of the three tiers are the same: one part tells them."""
    if not path or path == ("discovery",) or path in BY_TIER:
        return False
    return not any(path[: len(tiers)] == tiers and path[len(tiers)] != "fast" for tiers in BY_TIER)


def _part(path: KeyPath, section: type[Section]) -> str:
    title = NAMES.get(path, f"`[{table_name(path)}]`")
    text = cleandoc(section.__doc__ or "")
    if issubclass(section, Source):
        text += "\n\nIt takes the keys of `[[models.fast]]`, and these:"
    rows = "\n".join(_rows(section))
    return f"\n## {title}\n\n{text}\n\n{HEADINGS}\n{rows}\n"


def _rows(section: type[Section]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        if issubclass(section, Source) and field.description in MEANINGS_OF_A_SERVER:
            continue
        kind = kind_of(field)
        allowed = "a table of names" if name == "aliases" else kind.allowed
        yield f"| `{name}` | {allowed} | {_default(field)} | {field.description} |"


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(value_shown, value))}]`"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, BaseModel):
        keys = ", ".join(f"{name} = {number:g}" for name, number in value.model_dump().items())
        return f"`{{ {keys} }}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return "none" if value == {} else f"`{value_shown(value)}`"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the page is not what would be written")
    if parser.parse_args().check:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        print(f"{PAGE} is out of date; run: python docs/generate.py", file=sys.stderr)
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
