"""Words of a text, as full-text search sees them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrskit.words import words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Main Street 5", ["main", "street", "5"]),
        ("a-b_c d.e", ["a", "b", "c", "d", "e"]),
        ("Grüße", ["grüße"]),
        ("İz ΟΔΟΣ", ["iz", "οδοσ"]),
        ("", []),
        ("!?", []),
        ("x" * 256, []),
        ("x" * 255, ["x" * 255]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text())
def test_a_word_is_its_own_only_word(text: str) -> None:
    for word in words_of(text):
        assert words_of(word) == [word]


@given(st.text(), st.text())
def test_words_stay_apart_whatever_stands_between(left: str, right: str) -> None:
    assert words_of(f"{left} {right}") == words_of(left) + words_of(right)
