"""Words of a text, as full-text search sees them: the same on every read store.

A word is an unbroken run of letters and digits of any script, in small letters. Nothing is stemmed and no
word is left out, except those longer than `WORD_LENGTH_MAX`, which no person types.
"""

import re

__all__ = ["WORD_LENGTH_MAX", "words_of"]

WORD_LENGTH_MAX = 255
"""Longest word that is searchable, in UTF-16 units (the unit in which Elasticsearch counts)."""

_RUN_OF_LETTERS_AND_DIGITS = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of `text`, in order, each as often as it occurs."""
    return [
        word for word in _RUN_OF_LETTERS_AND_DIGITS.findall(_lowered(text)) if _utf16_length(word) <= WORD_LENGTH_MAX
    ]


def _lowered(text: str) -> str:
    """Small letters one by one, as Lucene does: Python alone would turn İ into two characters, and look ahead at Σ."""
    return text.replace("\u0130", "i").replace("\u03a3", "\u03c3").lower()


def _utf16_length(word: str) -> int:
    return len(word) if len(word) * 2 <= WORD_LENGTH_MAX else len(word.encode("utf-16-le", "surrogatepass")) // 2
