"""`env:NAME` and `file:PATH`: where they work, what is said if they don't, and that no secret is told."""

from pathlib import Path

import pytest

from octoroute.config import build
from octoroute.config.references import MAX_FILE_BYTES
from tests.config.sample import config, problem, problems_of, sample

TEXT_KEYS = {
    "server.host": "localhost",
    "models.fast.0.name": "other",
    "models.fast.0.model": "org/other",
    "models.fast.0.base_url": "http://elsewhere/v1",
    "models.fast.0.kind": "vllm",
    "models.fast.0.api_key": "sk-1",
    "routing.strategy": "llm",
    "routing.default_importance": "high",
    "routing.router_tier": "deep",
    "routing.aliases.gpt": "deep",
    "health.path": "/health",
    "observability.log_level": "debug",
    "observability.log_format": "json",
}


@pytest.mark.parametrize("path", TEXT_KEYS)
def test_every_text_may_come_from_the_environment_or_a_file(path: str, tmp_path: Path) -> None:
    plain = config((path, TEXT_KEYS[path]))
    assert config((path, "env:IT"), environ={"IT": TEXT_KEYS[path]}) == plain
    (tmp_path / "it").write_text(TEXT_KEYS[path] + "\n")
    assert build(sample((path, "file:it")), folder=tmp_path, environ={}) == plain


def _key(tmp_path: Path, content: bytes) -> str:
    (tmp_path / "key").write_bytes(content)
    made = build(sample(("models.fast.0.api_key", "file:key")), folder=tmp_path, environ={})
    return made.models.fast[0].api_key.get_secret_value()


@pytest.mark.parametrize("content", [b"sk-1", b"sk-1\n", b"sk-1\r\n"])
def test_the_line_break_at_the_end_of_a_file_is_dropped(content: bytes, tmp_path: Path) -> None:
    assert _key(tmp_path, content) == "sk-1"


def test_an_absolute_file_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1")
    reference = f"file:{tmp_path / 'key'}"
    made = build(sample(("models.fast.0.api_key", reference)), folder=Path("/nowhere"), environ={})
    assert made.models.fast[0].api_key.get_secret_value() == "sk-1"


@pytest.mark.parametrize(
    ("reference", "trouble"),
    [
        ("env:NOPE", "the environment variable NOPE is not set"),
        ("env:EMPTY", "the environment variable EMPTY is empty"),
        ("env:", "it names no environment variable; write env:NAME"),
        ("file:", "it names no file; write file:PATH"),
        ("file:/no/such", "the file /no/such can't be read (no such file or directory)"),
        ("file:/", "the file / can't be read (is a directory)"),
        ("file:/dev/zero", f"the file /dev/zero has more than {MAX_FILE_BYTES} bytes"),
        ("file:/dev/null", "the file /dev/null is empty"),
    ],
)
def test_a_reference_that_leads_nowhere_names_the_key_and_what_is_missing(
    reference: str, trouble: str
) -> None:
    expected = f'models.fast[0].api_key (endpoint "small") is "{reference}", but {trouble}'
    assert problem(("models.fast.0.api_key", reference), environ={"EMPTY": ""}) == expected


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    (message,) = problems_of(sample(("models.fast.0.api_key", "file:key")), folder=tmp_path)
    assert message.endswith(f"but the file {tmp_path / 'key'} is not UTF-8 text")


def test_a_zero_byte_in_a_file_name_is_refused() -> None:
    assert problem(("routing.strategy", "file:a\0b")).endswith("but a path can't have a zero byte in it")


@pytest.mark.parametrize(
    "path", ["routing.strategy", "models.fast.0.base_url", "server.host", "models.fast.0.api_key"]
)
def test_a_looked_up_value_that_is_not_allowed_is_not_shown(path: str) -> None:
    message = problem((path, "env:IT"), environ={"IT": "hush\n:/"})
    assert 'is "env:IT"; its value must be ' in message
    assert "hush" not in message


def test_a_looked_up_choice_that_is_nearly_right_gets_the_right_word() -> None:
    assert problem(("routing.router_tier", "env:IT"), environ={"IT": "fasst"}).endswith(
        'did you mean "fast"?'
    )


@pytest.mark.parametrize("path", ["server.port", "timeouts.fast", "observability.request_log"])
def test_a_reference_is_no_number_and_no_switch(path: str) -> None:
    assert problem((path, "env:IT"), environ={"IT": "5"}).endswith("(env: and file: stand for text only)")


def test_a_looked_up_value_is_not_looked_up_again() -> None:
    made = config(("models.fast.0.model", "env:A"), environ={"A": "env:B", "B": "wrong"})
    assert made.models.fast[0].model == "env:B"


def test_bytes_in_the_environment_that_are_no_text_are_refused() -> None:
    assert "its value must be" in problem(("models.fast.0.name", "env:A"), environ={"A": "a\udcff"})


def test_tls_files_are_relative_to_the_config_file(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.touch()
    key.touch()
    tree = sample(("server.tls_cert", "cert.pem"), ("server.tls_key", str(key)))
    made = build(tree, folder=tmp_path, environ={})
    assert (made.server.tls_cert, made.server.tls_key) == (str(cert), str(key))


def test_tls_files_can_be_read(tmp_path: Path) -> None:
    tree = sample(("server.tls_cert", "cert.pem"), ("server.tls_key", "."))
    assert problems_of(tree, folder=tmp_path) == (
        f'server.tls_cert is "cert.pem", but the file {tmp_path / "cert.pem"} can\'t be read '
        "(no such file or directory)",
        f'server.tls_key is ".", but the file {tmp_path} can\'t be read (is a directory)',
    )
