"""Foreign text in messages: short and on one line."""

from hypothesis import given
from hypothesis import strategies as st

from octoroute.routing.excerpt import excerpt


@given(st.text(st.characters()), st.integers(0, 50))
def test_an_excerpt_is_printable_and_never_longer_than_its_limit(text: str, limit: int) -> None:
    cut = excerpt(text, limit)
    assert cut.isprintable()
    assert len(cut) == min(len(text), limit)


def test_printable_text_stays_as_it_is() -> None:
    assert excerpt("na\u00efve \N{ROCKET}", 100) == "na\u00efve \N{ROCKET}"
