"""What can be compared: gateways, each started before one model server with one worker, and no gateway.

To add one that takes its upstream on the command line, no code is needed: see `--command` in __main__.py.
"""

import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar, Final

import octoroute


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gateway runs: its port, that of the model server, a folder to write to."""

    port: int
    upstream: int
    folder: Path

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


class Target:
    """What clients are pointed at. `model` is what they must ask for; `header` a line that they must send."""

    name: str
    model: str = "m"
    header: str = ""

    def installed(self) -> bool:
        return True

    def version(self) -> str:
        return ""


class Direct(Target):
    """No gateway: the model server itself. What the others add is measured against it."""

    name = "direct"


class Gateway(Target, ABC):
    """`env` is added to the environment of its process."""

    program: str
    env: ClassVar[dict[str, str]] = {}

    def installed(self) -> bool:
        return bool(shutil.which(self.program))

    @abstractmethod
    def command(self, place: Place) -> list[str]:
        """What starts it."""


def _version_said(*command: str) -> str:
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"\d+\.\d+[.\w-]*", said.stdout + said.stderr)
    return found[0] if found else ""


class Octoroute(Gateway):
    """As it comes: validation, routing, health, metrics, a log line for each request."""

    name = "octoroute"
    program = sys.executable
    model = "auto"

    def version(self) -> str:
        return octoroute.__version__

    def command(self, place: Place) -> list[str]:
        config = (
            f'[server]\nhost = "127.0.0.1"\nport = {place.port}\nworkers = 1\n[routing]\nstrategy = "rule"\n'
        )
        for tier in ("fast", "balanced", "deep"):
            config += (
                f'[[models.{tier}]]\nname = "m-{tier}"\nbase_url = "http://127.0.0.1:{place.upstream}/v1"\n'
                "max_tokens = 4096\n"
            )
        return [self.program, "-m", "octoroute", "--config", place.write("octoroute.toml", config)]


class Nginx(Gateway):
    name = program = "nginx"

    def version(self) -> str:
        return _version_said("nginx", "-v")

    def command(self, place: Place) -> list[str]:
        folder = place.folder
        paths = "".join(
            f"  {kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = f"""
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/errors warn;
worker_rlimit_nofile 65536;
events {{ worker_connections 30000; }}
http {{
{paths}  access_log off;
  keepalive_requests 10000000; keepalive_timeout 600s;
  client_max_body_size 64m; client_body_buffer_size 1m;
  upstream models {{ server 127.0.0.1:{place.upstream}; keepalive 4096; keepalive_requests 10000000; }}
  server {{
    listen 127.0.0.1:{place.port} backlog=4096;
    location / {{
      proxy_pass http://models; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""
        return ["nginx", "-p", str(folder), "-e", f"{folder}/errors", "-c", place.write("nginx.conf", config)]


class Haproxy(Gateway):
    name = program = "haproxy"

    def version(self) -> str:
        return _version_said("haproxy", "-v")

    def command(self, place: Place) -> list[str]:
        config = f"""
global
  maxconn 8000
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  option http-no-delay
  http-reuse always
listen models
  bind 127.0.0.1:{place.port}
  server one 127.0.0.1:{place.upstream}
"""
        return ["haproxy", "-f", place.write("haproxy.cfg", config)]


class Pipe(Gateway):
    """The usual Python gateway, in pipe.py."""

    name = "aiohttp pipe"
    program = sys.executable

    def version(self) -> str:
        return metadata.version("aiohttp")

    def command(self, place: Place) -> list[str]:
        upstream = f"http://127.0.0.1:{place.upstream}"
        return [self.program, "-m", "benchmarks.compare.pipe", str(place.port), upstream]


class LiteLlm(Gateway):
    """pip install 'litellm[proxy]'"""

    name = program = "litellm"
    env: ClassVar[dict[str, str]] = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}

    def version(self) -> str:
        return _version_said("litellm", "--version")

    def command(self, place: Place) -> list[str]:
        config = (
            "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/m\n"
            f"      api_key: none\n      api_base: http://127.0.0.1:{place.upstream}/v1\n"
        )
        path = place.write("litellm.yaml", config)
        return [
            "litellm",
            "--config",
            path,
            "--host",
            "127.0.0.1",
            "--port",
            str(place.port),
            "--num_workers",
            "1",
        ]


class FromCommand(Gateway):
    """`name=template`: a gateway that needs no file. {port}, {upstream} (a port), {folder} are filled in."""

    def __init__(self, definition: str) -> None:
        name, found, template = definition.partition("=")
        if not found or "{port}" not in template:
            raise ValueError(f"{definition!r} is not name=command with {{port}} and {{upstream}}")
        self.name = name
        self.words = template.split()
        self.program = self.words[0]

    def version(self) -> str:
        return _version_said(self.program, "--version")

    def command(self, place: Place) -> list[str]:
        fields = {"port": place.port, "upstream": place.upstream, "folder": place.folder}
        return [word.format(**fields) for word in self.words]


def router(name: str, package: str) -> FromCommand:
    upstream = "--worker-urls http://127.0.0.1:{upstream} --policy round_robin"
    return FromCommand(f"{name}={package} --host 127.0.0.1 --port {{port}} {upstream}")


TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for target in (
        Direct(),
        Octoroute(),
        Nginx(),
        Haproxy(),
        Pipe(),
        LiteLlm(),
        router("vllm-router", "vllm-router"),  # pip install vllm-router
        router("sglang-router", "sglang-router launch"),  # pip install sglang-router
    )
}
