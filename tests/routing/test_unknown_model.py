"""The message for a model that is not there: bounded, printable, and helpful."""

from hypothesis import given
from hypothesis import strategies as st

from octoroute.routing.unknown_model import MAX_COMPARED, unknown_model


def test_fifty_names_are_listed_and_the_rest_counted() -> None:
    names = [f"m{number}" for number in range(50)]
    assert unknown_model("other", names).message.endswith("m48, m49")
    assert unknown_model("other", [*names, "x", "y"]).message.endswith("m48, m49 and 2 more")


def test_the_clients_name_is_cut_to_100_characters() -> None:
    message = unknown_model("z" * 10_000_000, ["fast"]).message
    assert message == f'Unknown model "{"z" * 100}". Available: fast'


def test_the_clients_name_is_shown_printable() -> None:
    assert '"a b c  d"' in unknown_model("a\nb\x1bc\u2028\ud800d", ["fast"]).message


def test_the_nearest_name_is_suggested_whatever_its_case() -> None:
    assert 'Did you mean "Qwen3-8B"?' in unknown_model("qwen3_8b", ["fast", "Qwen3-8B"]).message
    assert 'Did you mean "balanced"?' in unknown_model("balance", ["fast", "balanced"]).message


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert "Did you mean" not in unknown_model("gpt-4o", ["fast", "qwen3-8b"]).message


def test_only_so_many_names_are_compared() -> None:
    names = [f"{number:08}" for number in range(MAX_COMPARED)]
    assert "Did you mean" in unknown_model("wanted_1", [*names[1:], "wanted-1"]).message
    assert "Did you mean" not in unknown_model("wanted_1", [*names, "wanted-1"]).message


@given(st.text(st.characters()), st.lists(st.text(max_size=12), max_size=70))
def test_the_message_is_bounded_and_printable(model: str, names: list[str]) -> None:
    error = unknown_model(model, [name for name in names if name.isprintable()])
    assert error.message.isprintable()
    assert len(error.message) < 200 + 50 * 15
