"""`[auth]`: forms of a key, what two keys may not share, and that no key is told or kept."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest

from octoroute.config.fleet import tenant_table
from tests.config.sample import config, problem, problems_of, sample

SECRET = "sk-very-hidden"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def test_a_key_comes_as_itself_from_the_environment_from_a_file_or_as_its_digest(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")
    for form, value in (
        ("key", SECRET),
        ("key", "env:TEAM_A"),
        ("key", f"file:{tmp_path / 'key'}"),
        ("key_sha256", DIGEST),
        ("key_sha256", DIGEST.upper()),
        ("key_sha256", "env:TEAM_A_SHA256"),
    ):
        made = config(
            ("auth.keys", [{"name": "team-a", form: value}]),
            environ={"TEAM_A": SECRET, "TEAM_A_SHA256": DIGEST},
        )
        assert made.auth.keys[0].digest.hex() == DIGEST


def test_only_the_digest_of_a_key_is_kept() -> None:
    made = config(("auth.keys", [{"name": "team-a", "key": SECRET}]))
    assert SECRET not in repr(made) + str(made)
    assert DIGEST not in repr(made) + str(made)
    assert SECRET.encode() not in pickle.dumps(made)


@pytest.mark.parametrize("key", ["", "two words", " sk-1", "sk-1\n", "sk-\u00e9", "\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    message = problem(("auth.keys", [{"name": "a", "key": key}]))
    assert message == ('auth.keys[0].key is "***"; it must be one word of ASCII text, best a long random one')


@pytest.mark.parametrize("digest", ["", SECRET, DIGEST[:-1], DIGEST + "0", "g" * 64])
def test_what_is_no_digest_may_be_the_key_by_mistake_and_is_not_shown(digest: str) -> None:
    message = problem(("auth.keys", [{"name": "a", "key_sha256": digest}]))
    assert message == (
        'auth.keys[0].key_sha256 is "***"; it must be a SHA-256 digest: 64 hexadecimal digits '
        "(`printf %s KEY | sha256sum` prints it)"
    )


def test_a_key_has_one_form() -> None:
    assert problem(("auth.keys", [{"name": "a"}])) == (
        "auth.keys[0] has neither key nor key_sha256; it needs one of them"
    )
    assert problem(("auth.keys", [{"name": "a", "key": SECRET, "key_sha256": DIGEST}])).endswith(
        "has both key and key_sha256; it needs one of them"
    )


def test_no_two_keys_share_a_name_or_are_the_same() -> None:
    keys = [
        {"name": "a", "key": "sk-1"},
        {"name": "a", "key": "sk-2"},
        {"name": "b", "key": SECRET},
        {"name": "c", "key_sha256": DIGEST.upper()},
        {"name": "d", "key": "env:A"},
    ]
    assert problems_of(sample(("auth.keys", keys)), {"A": "sk-2"}) == (
        'auth.keys[1].name is "a", the name of auth.keys[0] too; each key needs a name of its own',
        "auth.keys[3].key_sha256 is the key of auth.keys[2] too",
        "auth.keys[4].key is the key of auth.keys[1] too",
    )


def test_tiers_are_one_at_least_and_known() -> None:
    assert config(("auth.keys", [{"name": "a", "key": "k", "tiers": ["deep"]}])).auth.keys[0].tiers == (
        "deep",
    )
    assert problem(("auth.keys", [{"name": "a", "key": "k", "tiers": []}])) == (
        'auth.keys[0].tiers is empty; it must be an array of "fast", "balanced" or "deep"'
    )
    assert problem(("auth.keys", [{"name": "a", "key": "k", "tiers": ["Deep"]}])).endswith(
        'did you mean "deep"?'
    )


def test_public_paths_are_paths() -> None:
    assert config(("auth.public", [])).auth.public == ()
    assert problem(("auth.public", "/health")).endswith("an array of paths, each of which begins with /")
    assert problem(("auth.public", ["health"])).startswith('auth.public[0] is "health"; it must be a path')


def test_check_shows_what_each_tenant_may_and_no_key() -> None:
    keys: list[dict[str, Any]] = [
        {"name": "team-a", "key": SECRET, "requests_per_minute": 60, "tokens_per_minute": 90000},
        {
            "name": "two words",
            "key_sha256": "0" * 64,
            "max_in_flight": 4,
            "tiers": ["deep", "fast"],
            "admin": True,
        },
    ]
    assert tenant_table(config(("auth.keys", keys))).splitlines() == [
        "TENANT       REQUESTS/MIN  TOKENS/MIN  IN FLIGHT  TIERS                 ADMIN",
        "team-a                 60       90000   no limit  fast, balanced, deep  no",
        '"two words"      no limit    no limit          4  fast, deep            yes',
    ]
