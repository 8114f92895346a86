"""Says in words what a key of the schema may hold, and finds the key that a path leads to.

Messages and documentation both take their words from here, so they can't drift from the rules.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from octoroute.config.schema import Config
from octoroute.config.section import Section
from octoroute.config.values import Allowed
from octoroute.config.wording import key_path

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a value without its wrappers, and what limits it."""

    type: Any
    metadata: tuple[Any, ...] = ()

    @property
    def section(self) -> type[Section] | None:
        """The struct, where the value is a table with known keys."""
        return self.type if isinstance(self.type, type) and issubclass(self.type, Section) else None

    @property
    def item(self) -> "Kind":
        """What an array or a table with free keys holds."""
        arguments = [argument for argument in get_args(self.type) if argument is not Ellipsis]
        return _unwrapped(arguments[-1]) if arguments else Kind(Any)

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that are allowed, where the value is one of a few."""
        return tuple(get_args(self.type)) if get_origin(self.type) is Literal else ()

    @property
    def is_array(self) -> bool:
        return get_origin(self.type) is tuple

    @property
    def allowed(self) -> str:
        """What the value must be, to stand after "it must be"."""
        for entry in self.metadata:
            if isinstance(entry, Allowed):
                return entry.text
        if self.choices:
            return any_of(self.choices)
        if self.type is bool:
            return "true or false"
        if self.type in (int, float):
            return self._number()
        if self.is_array:
            return f"an array of {any_of(self.item.choices)}" if self.item.choices else "an array of tables"
        return "a table"

    def _number(self) -> str:
        noun = "whole number" if self.type is int else "number"
        low = next((entry.ge for entry in self.metadata if isinstance(entry, Ge)), None)
        above = next((entry.gt for entry in self.metadata if isinstance(entry, Gt)), None)
        high = next((entry.le for entry in self.metadata if isinstance(entry, Le)), None)
        return f"a finite {noun} above {above}" if low is None else f"a {noun} from {low} to {high}"


def any_of(words: Sequence[str]) -> str:
    """`"a", "b" or "c"`."""
    quoted = [f'"{word}"' for word in words]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _unwrapped(annotation: Any, metadata: Sequence[Any] = ()) -> Kind:
    if hasattr(annotation, "__metadata__"):
        return _unwrapped(annotation.__origin__, (*metadata, *annotation.__metadata__))
    if get_origin(annotation) in (Union, UnionType):
        present = [argument for argument in get_args(annotation) if argument is not type(None)]
        return _unwrapped(present[0], metadata)
    return Kind(annotation, tuple(metadata))


def kind_of(field: FieldInfo) -> Kind:
    return _unwrapped(field.annotation, field.metadata)


def kind_at(path: Path) -> Kind:
    """The kind of value that a path such as `("models", "fast", 0, "name")` leads to; Any off the schema."""
    kind = Kind(Config)
    for step in path:
        if kind.section is None:
            kind = kind.item
        elif step in kind.section.model_fields:
            kind = kind_of(kind.section.model_fields[str(step)])
        else:
            return Kind(Any)
    return kind


def table_name(path: Path) -> str:
    """The name of a table as it stands in brackets: `models.fast` for each entry of that array."""
    return key_path([step for step in path if isinstance(step, str)])


def tables(section: type[Section] = Config, path: Path = ()) -> Iterator[tuple[Path, type[Section]]]:
    """Every table with known keys, with its path; an array counts once, as its entry 0."""
    yield path, section
    for name, field in section.model_fields.items():
        kind = kind_of(field)
        steps: Path = (*path, name)
        if kind.is_array:
            kind, steps = kind.item, (*steps, 0)
        if kind.section is not None:
            yield from tables(kind.section, steps)
