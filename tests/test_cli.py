"""The command line: what it prints and where, its exit codes, and that no mishap shows a traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from octoroute import __version__
from octoroute.cli import main
from octoroute.config import load
from octoroute.config.template import template

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "replicas.toml"

Output = pytest.CaptureFixture[str]


def _run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "octoroute", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_version_and_the_help_are_printed(capsys: Output) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"octoroute {__version__}\n"
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--config", "config", "check", "demo", "--version"):
        assert word in text


def test_the_program_ends_with_the_exit_code() -> None:
    done = _run("check", "--config", "nowhere.toml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"nowhere.toml: no such file (the working directory is {ROOT})")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [["--nonsense"], ["nonsense"], ["check", "--conf", "x"], ["--config"], ["demo", "--port", "65536"]],
)
def test_wrong_usage_is_told_on_stderr_with_exit_code_2(arguments: list[str], capsys: Output) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "usage: octoroute" in output.err
    assert "error: " in output.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--confg x", "octoroute: error: there is no option --confg; did you mean --config?"),
        ("--confg=x", "octoroute: error: there is no option --confg; did you mean --config?"),
        ("check --confg x", "octoroute check: error: there is no option --confg; did you mean --config?"),
        ("--port 3000", "octoroute: error: there is no option --port; options: --help, --version, --config"),
        ("-c x", "octoroute: error: there is no option -c; options: --help, --version, --config"),
        ("doctor --tire fast", "octoroute doctor: error: there is no option --tire; did you mean --tier?"),
        ("--config x chek", "octoroute: error: there is no command 'chek'; did you mean check?"),
        ("help", "octoroute: error: there is no command 'help'; did you mean --help?"),
        ("demo serv", "octoroute demo: error: there is no command 'serv'; did you mean servers?"),
        (
            "start",
            "octoroute: error: there is no command 'start'; commands: serve, config, check, explain, doctor, "
            "reload, upgrade, demo",
        ),
        (
            "config.toml",
            "octoroute: error: there is no command 'config.toml'; give the config file as "
            "--config config.toml",
        ),
        (
            "serve my.toml",
            "octoroute serve: error: 'my.toml' is not expected here; give the config file as "
            "--config my.toml",
        ),
    ],
)
def test_a_misspelt_word_is_named_and_so_is_what_may_have_been_meant(
    arguments: str, told: str, capsys: Output
) -> None:
    assert main(arguments.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1] == told


@pytest.mark.parametrize("arguments", ["config -onew.toml", "config --output=new.toml"])
def test_a_value_may_be_joined_to_its_option(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 0
    assert (tmp_path / "new.toml").exists()


def test_a_port_that_is_none_is_named(capsys: Output) -> None:
    assert main(["demo", "--port", "http"]) == 2
    assert "'http' is not a port; a port is a number from 0 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--config", str(EXAMPLE), "check"], ["check", "--config", str(EXAMPLE)]]
)
def test_the_config_may_be_named_before_and_after_the_command(arguments: list[str], capsys: Output) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"{EXAMPLE} is valid.\n")


def test_check_shows_each_endpoint(capsys: Output) -> None:
    assert main(["check", "--config", str(EXAMPLE)]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.count("qwen3-8b-instruct   http://gpu-") == 3
    assert output.out.count("33.3 %") == 3
    assert output.out.count("15 s") == 3


def test_check_takes_config_toml_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["config", "-o", "config.toml"]) == 0
    assert main(["check"]) == 0
    assert "config.toml is valid." in capsys.readouterr().out


def test_check_tells_all_problems_on_stderr_each_on_a_line(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(template().replace("port = 3000", "prt = 3000").replace('"hybrid"', '"tool"'))
    assert main(["check", "--config", str(path)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        f'{path}: server.prt is not a known key; did you mean "port"?',
        f'{path}: routing.strategy is "tool"; it must be "rule", "llm" or "hybrid"',
    ]


def test_check_shows_no_secret(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAST_SERVER_KEY", "sk-hidden")
    path = tmp_path / "config.toml"
    path.write_text(template().replace("# api_key", "api_key"))
    assert main(["check", "--config", str(path)]) == 0
    assert "hidden" not in capsys.readouterr().out


def test_config_prints_the_template(capsys: Output) -> None:
    assert main(["config"]) == 0
    assert capsys.readouterr().out == template()


@pytest.mark.parametrize("option", ["-o", "--output"])
def test_config_writes_a_file_that_loads(option: str, tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "new.toml"
    assert main(["config", option, str(path)]) == 0
    assert load(path).server.port == 3000
    assert f"octoroute check --config {path}" in capsys.readouterr().out


def test_config_does_not_overwrite_a_file_nor_follow_a_link(tmp_path: Path, capsys: Output) -> None:
    taken, link = tmp_path / "taken.toml", tmp_path / "link.toml"
    taken.write_text("mine")
    link.symlink_to(tmp_path / "target")
    for path in (taken, link):
        assert main(["config", "-o", str(path)]) == 1
        assert capsys.readouterr().err == (
            f"{path}: it exists already and is not overwritten; choose another path, or remove it first\n"
        )
    assert taken.read_text() == "mine"
    assert not (tmp_path / "target").exists()


def test_config_names_the_folder_that_is_missing(tmp_path: Path, capsys: Output) -> None:
    assert main(["config", "-o", str(tmp_path / "no" / "new.toml")]) == 1
    assert capsys.readouterr().err.endswith(f"the folder {tmp_path / 'no'} does not exist\n")


def test_config_tells_why_a_file_can_not_be_written(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "file").touch()
    assert main(["config", "-o", str(tmp_path / "file" / "new.toml")]) == 1
    assert capsys.readouterr().err.endswith("can't be written: not a directory\n")


def test_serving_without_a_config_ends_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("config.toml: no such file")
    assert "`octoroute config -o config.toml` writes a template" in error


@pytest.mark.parametrize("command", ["config", "--help"])
def test_a_reader_that_has_gone_is_no_reason_for_a_traceback(command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "octoroute", command],
            cwd=ROOT,
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141 if command == "config" else 0, b"")


def test_a_full_disk_is_told_in_a_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "octoroute", "config"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == b"octoroute: can't write to standard output: no space left on device\n"


def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    pipe = tmp_path / "config.toml"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "octoroute", "check", "--config", str(pipe)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # Opening waits for the reader: after it the command is where it reads the config.
    # Closing it ends a read that began just behind the signal, which nothing else would interrupt.
    with pipe.open("wb"):
        process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)
    assert (process.returncode, *output) == (130, b"", b"")
