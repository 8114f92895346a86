"""The native tools, compiled when first used: a model server that computes nothing, and clients that check
every byte. In Python they would cost more than most gateways do.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

SOURCES: Final = Path(__file__).parent
BUILT: Final = SOURCES.parents[1] / "build" / "native"
# What a run of `load` may take beyond the time that it was told to.
PATIENCE_S: Final = 120.0


def tool(name: str) -> Path:
    """Path of the compiled `model_server` or `load`. Raises RuntimeError without a C compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("there is no C compiler. On Debian: apt-get install -y gcc libc6-dev")
    made, source = BUILT / name, SOURCES / f"{name}.c"
    newest = max(source.stat().st_mtime, (SOURCES / "wire.h").stat().st_mtime)
    if not made.exists() or made.stat().st_mtime < newest:
        BUILT.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", made, source], check=True)
    return made


def pinned(cpu: int | None) -> list[str]:
    """Words before a command that keep it on one core; none where that can't be."""
    return ["taskset", "-c", str(cpu)] if cpu is not None and shutil.which("taskset") else []


@contextmanager
def model_server(cpu: int | None = None) -> Iterator[int]:
    """A model server; its port."""
    command = [*pinned(cpu), str(tool("model_server"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"\d+", process.stdout.readline())
            if found is None:
                raise RuntimeError("the model server did not start")
            yield int(found[0])
        finally:
            process.terminate()


def start_load(port: int, cpu: int | None = None, **options: Any) -> "subprocess.Popen[str]":
    """Clients that run in the background: see load.c for the options; `stream=True` is a bare word."""
    command = [*pinned(cpu), str(tool("load")), "--port", str(port)]
    for name, value in options.items():
        word = "--" + name.replace("_", "-")
        if value is True:
            command.append(word)
        elif value is not False:
            command += [word, str(value)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(load: "subprocess.Popen[str]", timeout_s: float = 3600.0) -> dict[str, Any]:
    """What the clients saw, when they are done. Raises RuntimeError where they could not even run."""
    try:
        output, _ = load.communicate(timeout=timeout_s)
    except BaseException:
        load.kill()
        load.communicate()
        raise
    if not output.startswith("{"):
        raise RuntimeError(f"load ended with {load.returncode}")
    found: dict[str, Any] = json.loads(output)
    return found
