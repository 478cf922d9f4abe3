"""Documents that are folded in flat memory are those that would be folded in any."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cqrskit.document_difference import ABSENT, FieldDifference, field_differences
from cqrskit.folded_documents import FoldedDocuments
from cqrskit.folding import Folded
from tests.unit.folding_bank import Row

steps = st.lists(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=6), max_size=25)


@settings(max_examples=50)
@given(steps=steps)
def test_documents_come_back_however_few_are_held(steps: list[list[tuple[int, bool]]]) -> None:
    expected: dict[str, tuple[int, Row | None]] = {}
    with FoldedDocuments(Row, held_max=4) as folded:
        for position, step in enumerate(steps, start=1):
            changes = {f"é{number}": deleted for number, deleted in step}
            started = folded.start(list(changes))
            assert {key: (each.version, each.document) for key, each in started.items()} == {
                key: expected.get(key, (0, None)) for key in changes
            }
            for key, deleted in changes.items():
                document = None if deleted else Row(position, (key,))
                started[key] = Folded(position, document, changed=True)
                expected[key] = (position, document)
            folded.keep(started)
        folded.flush()
        rows = [(row.key, (row.version, folded.decoded(row.data))) for row in folded.ordered()]
        assert rows == sorted(expected.items())
        assert folded.count() == len(expected)


def test_a_document_that_no_store_takes_is_told_unless_a_later_event_mends_it() -> None:
    with FoldedDocuments(Row, held_max=1) as folded:
        folded.keep({key: Folded(1, Row(2**70, ()), changed=True) for key in ("a", "b", "c")})
        started = folded.start(["a"])
        assert started["a"].document == Row(2**70, ())
        folded.keep({"a": Folded(2, Row(1, ()), changed=True)})
        folded.flush()
        assert folded.unstorable.keys() == {"b", "c"}
        assert "beyond 64 bits" in folded.unstorable["b"]
        assert [row.key for row in folded.ordered()] == ["a"]


def test_the_fields_that_differ_are_named_with_both_values() -> None:
    assert field_differences(Row(1, ("a",)), Row(2, ("a", "b"))) == (
        FieldDifference("amount", 1, 2),
        FieldDifference("history", ["a"], ["a", "b"]),
    )
    assert field_differences({"a": {"b": 1, "c": True}}, {"a": {"b": 1, "c": 1, "d": 2}}) == (
        FieldDifference("a.c", True, 1),
        FieldDifference("a.d", ABSENT, 2),
    )
    assert field_differences(None, Row(1, ())) == ()
