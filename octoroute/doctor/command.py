"""The command: which servers are meant, all asked at once, what was found printed in their order."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from octoroute.config import TIERS, load
from octoroute.config.references import References, is_reference
from octoroute.config.servers import Model
from octoroute.config.wording import url_without_secrets as shown
from octoroute.doctor.examine import Findings, Server, examine
from octoroute.doctor.report import report, table
from octoroute.errors import ConfigError

MAX_CONCURRENT: Final = 16


@dataclass(frozen=True, slots=True)
class Patient:
    """A server and what is written under its report."""

    server: Server
    table: Callable[[Findings], str]


def run(urls: Sequence[str], *, config: Path, tier: str = "fast", api_key: str = "") -> tuple[str, int]:
    """What to print, and the exit code: 1 if a server can't be used. Without URLs those of the config.

    `api_key` is a reference, `env:NAME` or `file:PATH`. Raises ConfigError.
    """
    patients = [_given(url, tier, api_key) for url in urls] if urls else _configured(config)
    with ThreadPoolExecutor(MAX_CONCURRENT) as threads:
        found = list(threads.map(lambda patient: examine(patient.server), patients))
    texts = [
        report(patient.server, findings, patient.table(findings))
        for patient, findings in zip(patients, found, strict=True)
    ]
    return "\n".join(texts), int(any(findings.problem or findings.chat_problem for findings in found))


def _given(url: str, tier: str, api_key: str) -> Patient:
    base_url = url if "://" in url else f"http://{url}"
    base_url = base_url.rstrip("/")
    if not base_url.endswith("/v1"):
        base_url += "/v1"
    try:
        # The rules of the config hold for what is to stand in it.
        Model.model_validate({"name": "a", "base_url": base_url, "max_tokens": 1})
    except ValidationError:
        raise ConfigError(shown(url), ["it is not the URL of a server, such as http://gpu-1:8080"]) from None
    server = Server(base_url, _secret(api_key))
    return Patient(server, lambda found: table(tier, server, found, api_key))


def _secret(reference: str) -> str:
    if not reference:
        return ""
    if not is_reference(reference):
        raise ConfigError("--api-key", ["write env:NAME or file:PATH, so that the key itself is not shown"])
    found = References(Path(), os.environ).look_up(reference)
    if found.trouble:
        raise ConfigError("--api-key", [found.trouble])
    return found.text


def _configured(path: Path) -> list[Patient]:
    config = load(path)
    patients = []
    for tier in TIERS:
        for model in config.models.of(tier):
            server = Server(
                model.base_url, model.api_key.get_secret_value(), model.tls_verify, model.kind, model.model
            )
            patients.append(Patient(server, _in_config(tier, model)))
    return patients


def _in_config(tier: str, model: Model) -> Callable[[Findings], str]:
    def note(found: Findings) -> str:
        told = f"# It is {tier}/{model.name} in the config.\n"
        if found.kind and model.kind not in ("auto", found.kind):
            told += f'# Beware: its kind there is "{model.kind}".\n'
        return told

    return note
