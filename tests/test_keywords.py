"""The search for keywords, with what Python itself finds as the oracle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute._keywords import Keywords

GROUPS = [["kiki code", "``"], ["k", "ab", "abc"], ["hi ", "write a story"]]
# Parts of words, and characters that are others in lower case: the kelvin sign, a dotted I, sharp s, sigma.
PIECES = st.sampled_from(
    [
        "kiki",
        " ",
        "code",
        "`",
        "k",
        "a",
        "bc",
        "h",
        "i",
        "write a",
        "story",
        "K",
        "İ",
        "ẞ",
        "Σ",
        "é",
        "漢",
        "😀",
    ]
)
TEXTS = st.lists(PIECES | PIECES.map(str.upper) | st.text(max_size=3)).map("".join)


@given(TEXTS)
def test_the_first_group_that_has_a_word_in_the_text_is_found(text: str) -> None:
    lower = text.lower()
    having = [at for at, words in enumerate(GROUPS) if any(word in lower for word in words)]
    assert Keywords(GROUPS).find(text) == (having[0] if having else -1)


@pytest.mark.parametrize("word", ["", "Upper", "ends in i", "line\nfeed", "ü"])
def test_what_could_not_be_found_for_certain_is_no_keyword(word: str) -> None:
    with pytest.raises(ValueError, match=r"not a keyword|ascii"):
        Keywords([[word]])


def test_there_are_64_words_at_most() -> None:
    assert Keywords([["word"] * 64]).find("a WORD") == 0
    with pytest.raises(ValueError, match="65 words"):
        Keywords([["word"] * 65])
