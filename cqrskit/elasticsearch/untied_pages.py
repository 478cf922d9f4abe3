"""Pages in the order of one number or moment, asked for without the tie-break by id, which makes them far dearer.

Elasticsearch looks up the id of each document that comes into question if it is a part of the order. Where values are
unique, as positions are, or nearly so, that decides nothing. So a page is first asked for in the order of the value
alone, and rows of one value are put in order here. Only if the last value of the page has rows that did not come is the
page asked for anew, in the whole order.
"""

from itertools import groupby
from typing import Any

from cqrskit.document import FieldKind
from cqrskit.elasticsearch.search_body import page_body
from cqrskit.query_plan import AllNode, Plan, RangeNode

__all__ = ["untied_body", "untied_rows"]

NUMBERS = frozenset({FieldKind.LONG, FieldKind.DOUBLE, FieldKind.DATETIME, FieldKind.DATE})


def untied_body(plan: Plan) -> dict[str, Any] | None:
    """The request for a page in the order of the value alone; None for a plan in another order than that of one value.

    It begins with the rows of the value that the page before has ended with, one of which is the last of that page.
    """
    if len(plan.sort) != 2 or plan.sort[0].field is None or plan.sort[0].field.kind not in NUMBERS:
        return None
    value = plan.sort[0]
    if plan.after is None:
        return page_body(plan.where, plan.sort[:1], plan.limit + 1)
    bound = RangeNode(plan.sort[0].field, (("lte" if value.descending else "gte", plan.after[0]),))
    return page_body(AllNode((plan.where, bound)), plan.sort[:1], plan.limit + 2)


def untied_rows(plan: Plan, rows: list[Any]) -> list[Any] | None:
    """The rows of the page, and at least one more if there are more, in the whole order; None if that is not known."""
    value, tie_break = plan.sort
    descending = tie_break.descending
    asked_for = plan.limit + (1 if plan.after is None else 2)
    groups = [
        sorted(group, key=lambda row: str(row["_id"]), reverse=descending)
        for _, group in groupby(rows, key=lambda row: row["sort"])
    ]
    incomplete = groups.pop() if len(rows) == asked_for else []
    if plan.after is not None and groups and value.value_in("", groups[0][0]["_source"]) == plan.after[0]:
        last = plan.after[1]
        groups[0] = [row for row in groups[0] if (row["_id"] < last if descending else row["_id"] > last)]
    complete = [row for group in groups for row in group]
    if incomplete and len(complete) < plan.limit:
        return None
    return complete + incomplete
