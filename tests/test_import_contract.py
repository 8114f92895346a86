"""What import-linter can't see: imports in `.pyx` files, submodules of aiohttp, names and sizes of files.

It reads files and imports nothing of octoroute, so it also judges a tree that does not build.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "octoroute"
CORES = sorted(PACKAGE.rglob("*.pyx"))
# Of modules in Python, which import-linter judges: a declaration beside one must not see more than it does.
TYPED = sorted(path for path in PACKAGE.rglob("*.pxd") if path.with_suffix(".py").exists())
DECLARATIONS = sorted(set(PACKAGE.rglob("*.pxd")) - set(TYPED))
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(path for top in ("tests", "benchmarks") for path in (ROOT / top).rglob("*.py"))

DRAWERS = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\b|c?import\s+(.+))")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _cython_imports(text: str) -> Iterator[str]:
    """Full names of the modules that Cython source imports or cimports."""
    for line in text.splitlines():
        if match := CYTHON_IMPORT.match(line):
            source, several = match.groups()
            if source == ".":
                source = "octoroute"
            elif source and source.startswith("."):
                source = f"octoroute{source}"
            names = [source] if source else [part.split(" as ")[0].strip() for part in several.split(",")]
            yield from (name for name in names if name)


def _python_imports(tree: ast.AST) -> Iterator[str]:
    """Full names that Python source imports, `from a import b` as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


@pytest.mark.parametrize("path", CORES + DECLARATIONS, ids=_name)
def test_a_core_imports_no_python_of_the_package_and_no_logging(path: Path) -> None:
    cores = {f"octoroute.{core.stem}" for core in CORES + DECLARATIONS}
    for name in _cython_imports(path.read_text()):
        assert name.split(".")[0] != "logging"
        assert name.split(".")[0] != "octoroute" or name in cores, f"{name} is Python"


@pytest.mark.parametrize("path", TYPED, ids=_name)
def test_the_types_of_a_module_come_from_where_it_imports(path: Path) -> None:
    seen: set[Path] = set()
    ahead = [path.with_suffix(".py")]
    while ahead:
        module = ahead.pop()
        if module not in seen and module.exists():
            seen.add(module)
            for name in _python_imports(ast.parse(module.read_text())):
                ahead += [
                    ROOT.joinpath(*part.split(".")).with_suffix(".py")
                    for part in (name, name.rpartition(".")[0])
                ]
    for name in _cython_imports(path.read_text()):
        python = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        assert python in seen or not python.exists(), f"{path.stem}.py does not import {name}"


def test_every_core_has_a_stub() -> None:
    assert [path for path in CORES if not path.with_suffix(".pyi").exists()] == []


def test_cores_are_under_350_lines_and_modules_under_400() -> None:
    assert [path for path in CORES + DECLARATIONS if _lines(path) >= 350] == []
    assert [path for path in MODULES + TESTS if _lines(path) >= 400] == []


def test_no_file_is_named_after_a_drawer() -> None:
    everything = {*CORES, *DECLARATIONS, *TYPED, *MODULES, *TESTS}
    everything |= {folder for path in everything for folder in path.relative_to(ROOT).parents}
    assert [path for path in everything if path.stem.strip("_") in DRAWERS] == []


def test_only_the_server_package_imports_aiohttp_web() -> None:
    others = [path for path in MODULES if "server" not in path.parts]
    imports = {path: set(_python_imports(ast.parse(path.read_text()))) for path in others}
    server = re.compile(r"aiohttp\.(web|helpers|http_)")
    assert [path for path in others if any(map(server.match, imports[path]))] == []


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("from . import errors", ["octoroute"]),
        ("from .errors import GatewayError", ["octoroute.errors"]),
        ("from octoroute._select cimport Table", ["octoroute._select"]),
        ("    import logging", ["logging"]),
        ("import json, logging as log", ["json", "logging"]),
        ("cimport cython", ["cython"]),
        ("from libc.math cimport isfinite", ["libc.math"]),
        ('cdef object imported = "from here import there"', []),
    ],
)
def test_the_reader_of_cython_imports_understands(line: str, names: list[str]) -> None:
    assert list(_cython_imports(line)) == names
