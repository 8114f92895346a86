"""What the supervisor makes of a new process that does not come to serve."""

import os
import selectors
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octoroute.supervisor import handover, upgrading
from octoroute.supervisor.channel import Channel
from octoroute.supervisor.handover import VARIABLE, Predecessor, own_command
from octoroute.supervisor.upgrading import START_SECONDS, Upgrades


class Asker:
    """A worker on whose line the outcome is told."""

    pid = 0

    def __init__(self) -> None:
        self.channel, self.theirs = Channel.pair()

    def told(self) -> dict[str, Any]:
        message = self.theirs.receive()
        assert message is not None
        assert (message.kind, message.fields["ask"]) == ("upgraded", 7)
        return dict(message.fields["outcome"])


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        yield selector


@pytest.fixture
def asker() -> Iterator[Asker]:
    asker = Asker()
    yield asker
    asker.channel.close()
    asker.theirs.close()


def upgrade(
    program: list[str], selector: selectors.BaseSelector, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> Upgrades:
    monkeypatch.setattr(upgrading, "own_command", lambda: program)
    upgrades = Upgrades(selector)
    upgrades.ask(asker, 7)
    upgrades.begin([])
    return upgrades


def reap(upgrades: Upgrades) -> None:
    # Not any child: other tests in this process may have some too.
    successor = upgrades._successor
    assert successor is not None
    pid, status = os.waitpid(successor.pid, 0)
    upgrades.ended(pid, os.waitstatus_to_exitcode(status))


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_one_that_does_not_serve_in_time_is_killed(
    selector: selectors.BaseSelector, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrades = upgrade(python("import signal; signal.pause()"), selector, asker, monkeypatch)
    deadline = upgrades.deadline
    assert deadline is not None
    upgrades.look_after(deadline - 1)
    with pytest.raises(BlockingIOError):
        asker.told()
    upgrades.look_after(deadline)
    reap(upgrades)
    assert asker.told() == {"problems": [f"it did not serve within {START_SECONDS:g} s"]}
    assert (upgrades.deadline, upgrades.taken) == (None, None)
    assert not selector.get_map()


def test_one_that_ends_is_reported_with_its_last_words_or_its_status(
    selector: selectors.BaseSelector, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    reap(upgrade(python("print('x'); raise SystemExit('no luck')"), selector, asker, monkeypatch))
    assert asker.told() == {"problems": ["no luck"]}
    reap(upgrade(python("raise SystemExit(3)"), selector, asker, monkeypatch))
    assert asker.told() == {"problems": ["it ended with status 3; the log says why"]}


def test_a_program_that_is_not_there_is_reported(
    selector: selectors.BaseSelector, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(["/nowhere/octoroute"], selector, asker, monkeypatch)
    assert asker.told() == {"problems": ["/nowhere/octoroute can't be started: no such file or directory"]}


def test_one_that_speaks_another_language_is_ended(
    selector: selectors.BaseSelector, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"json.loads(os.environ['{VARIABLE}'])['line']"
    program = python(f"import json, os, signal; os.write({line}, b'{{}}'); signal.pause()")
    upgrade(program, selector, asker, monkeypatch)
    [(key, _)] = selector.select(60)
    key.data()
    reap(key.data.__self__)
    assert asker.told()["problems"] == ["not a word of a new process: b'{}'"]


def test_who_asks_meanwhile_is_told_the_same_and_starts_nothing(
    selector: selectors.BaseSelector, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrades = upgrade(python("import signal; signal.pause()"), selector, asker, monkeypatch)
    upgrades.ask(asker, 7)
    upgrades.begin([])
    upgrades.abandon()
    reap(upgrades)
    assert asker.told() == asker.told() == {"problems": ["it ended with signal 15; the log says why"]}
    with pytest.raises(BlockingIOError):
        asker.told()


def test_signals_to_a_whole_service_do_not_end_one_that_starts(
    selector: selectors.BaseSelector, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = python(
        "import signal; print(sorted(signal.pthread_sigmask(0, ())), file=__import__('sys').stderr)"
    )
    reap(upgrade(program, selector, asker, monkeypatch))
    held = sorted({signal.Signals.SIGHUP, signal.Signals.SIGUSR2})
    assert asker.told()["problems"] == [str(held)]


def test_the_first_process_of_a_container_is_not_replaced(
    selector: selectors.BaseSelector, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    upgrade(["/bin/true"], selector, asker, monkeypatch)
    assert "a container ends with its first process" in asker.told()["problems"][0]


def test_a_program_is_started_again_as_it_was_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "octoroute"
    script.touch()
    monkeypatch.setattr(sys, "argv", [str(script), "--config", "c.toml"])
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", str(script), "--config", "c.toml"])
    assert own_command() == [sys.executable, str(script), "--config", "c.toml"]
    script.chmod(0o755)
    assert own_command() == [str(script), "--config", "c.toml"]
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "-m", "octoroute", "--config", "c.toml"])
    assert own_command() == [sys.executable, "-m", "octoroute", "--config", "c.toml"]


def test_a_process_that_nobody_started_to_replace_it_has_no_predecessor() -> None:
    assert Predecessor.of_environment({"PATH": "/bin"}) is None
    assert handover.VARIABLE not in os.environ
