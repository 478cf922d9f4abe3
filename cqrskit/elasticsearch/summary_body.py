"""Plans of summaries in Elasticsearch's own words, and what its answers say.

Elasticsearch adds up in doubles, which hold whole numbers up to 2**53. So each answer also says how far it went: where
the absolute values come to less than that, every step was exact. Where they do not, the same is asked again with
a script that adds up halves of 32 bits in whole numbers. See `docs/decisions`.
"""

import math
from typing import Any

from cqrskit.document import Field, FieldKind
from cqrskit.elasticsearch.search_body import query_body
from cqrskit.errors import InvalidQuery
from cqrskit.summary import Figures
from cqrskit.summary_plan import Grouping, GroupingKind, SummaryPlan, no_figures

__all__ = ["groups_in", "is_exact", "summary_body"]

MARK = "cqrskit_mark"
GROUPS = "groups"
WITHOUT = "without"
"""The documents without a value. `missing_bucket` could find them too, but then whole groups are lost between pages."""
EXACT_BELOW = 2**53
SQUARE_ERROR = 1 - 1e-6
"""Room for what a sum of squares, itself in doubles, may be wrong by."""

_NUMBER_OF_INTERVAL = """
if (doc[params.field].size() != 0) {
  long value = doc[params.field].value;
  long interval = ((Number) params.interval).longValue();
  long number = value / interval;
  emit(value % interval < 0 ? number - 1 : number);
}
"""
_START = "state.figures = new long[] {0L, 0L, 0L, Long.MAX_VALUE, Long.MIN_VALUE}"
_ADD = """
if (doc[params.field].size() != 0) {
  long[] figures = state.figures;
  long value = doc[params.field].value;
  figures[0] += 1L;
  figures[1] += value >> 32;
  figures[2] += value & 4294967295L;
  if (value < figures[3]) { figures[3] = value; }
  if (value > figures[4]) { figures[4] = value; }
}
"""
_END = "return [state.figures[0], state.figures[1], state.figures[2], state.figures[3], state.figures[4]]"


def summary_body(plan: SummaryPlan, *, exact: bool) -> dict[str, Any]:
    """The request for the groups wanted and one more. `exact`: whole numbers are added up by a script."""
    figures = {f"f{place}": _figures_body(field, exact=exact) for place, field in enumerate(plan.fields)}
    body: dict[str, Any] = {"query": query_body(plan.where), "size": 0}
    if plan.by is None:
        return {**body, "track_total_hits": True, "aggs": figures}
    composite: dict[str, Any] = {"size": plan.limit + 1, "sources": [{MARK: _source(plan.by)}]}
    if plan.after is not None:
        composite["after"] = {MARK: plan.after}
    if plan.by.kind is GroupingKind.WHOLE:
        params = {"field": plan.by.field.name, "interval": plan.by.interval}
        script = {"source": _NUMBER_OF_INTERVAL, "params": params}
        body["runtime_mappings"] = {MARK: {"type": "long", "script": script}}
    without = {"bool": {"must_not": [{"exists": {"field": plan.by.field.name}}]}}
    groups = {GROUPS: {"composite": composite, "aggs": figures}, WITHOUT: {"filter": without, "aggs": figures}}
    return {**body, "track_total_hits": False, "aggs": groups}


def _figures_body(field: Field, *, exact: bool) -> dict[str, Any]:
    if field.kind is not FieldKind.LONG or not exact:
        return {"extended_stats": {"field": field.name}}
    scripts = {"init_script": _START, "map_script": _ADD, "combine_script": _END, "reduce_script": "return states"}
    return {"scripted_metric": {**scripts, "params": {"field": field.name}}}


def _source(by: Grouping) -> dict[str, Any]:
    name = by.field.name
    match by.kind:
        case GroupingKind.VALUE:
            return {"terms": {"field": name}}
        case GroupingKind.WHOLE:
            return {"terms": {"field": MARK}}
        case GroupingKind.REAL:
            return {"histogram": {"field": name, "interval": by.interval}}
        case GroupingKind.CALENDAR:
            return {"date_histogram": {"field": name, "calendar_interval": by.interval, "format": "strict_date"}}


def groups_in(response: Any, plan: SummaryPlan) -> list[tuple[Any, int, list[Figures]]] | None:
    """Mark, count and figures of each group; None if a whole number may be inexact, so that it is asked again."""
    found = response.get("aggregations") or {}
    if plan.by is None:
        rows = [(None, int(response["hits"]["total"]["value"]), found)]
    else:
        buckets = found[GROUPS]["buckets"] if found else []
        rows = [(_mark(plan.by, bucket["key"][MARK]), int(bucket["doc_count"]), bucket) for bucket in buckets]
        if found and len(rows) <= plan.limit and found[WITHOUT]["doc_count"] > 0:
            rows.append((None, int(found[WITHOUT]["doc_count"]), found[WITHOUT]))
    groups = []
    for mark, count, parts in rows:
        figures = [_figures(parts.get(f"f{place}"), field) for place, field in enumerate(plan.fields)]
        known = [each for each in figures if each is not None]
        if len(known) < len(figures):
            return None
        groups.append((mark, count, known))
    return groups


def _mark(by: Grouping, key: Any) -> Any:
    if by.kind is GroupingKind.REAL and not math.isfinite(float(key)):
        raise InvalidQuery(f"the interval of {by.field.name!r} is too small for its values: {by.interval!r}")
    return key


def _figures(found: Any, field: Field) -> Figures | None:
    """None if they may be inexact."""
    if found is not None and "value" in found:
        return _added_up(found["value"] or [])
    if found is None or found["count"] == 0:
        return no_figures(field)
    count, total = int(found["count"]), float(found["sum"])
    smallest, largest = float(found["min"]), float(found["max"])
    if field.kind is FieldKind.DOUBLE:
        return Figures(count, total, smallest, largest)
    if not is_exact(count, total, smallest, largest, float(found["sum_of_squares"])):
        return None
    return Figures(count, int(total), int(smallest), int(largest))


def is_exact(count: int, total: float, smallest: float, largest: float, squares: float) -> bool:
    """Whether all absolute values together are below 2**53, and so every sum of some of them.

    With one sign that is the sum itself; with both, it is at most the root of the number of values times the sum of
    their squares (Cauchy and Schwarz).
    """
    if smallest >= 0 or largest <= 0:
        return abs(total) < EXACT_BELOW
    return count * squares < EXACT_BELOW**2 * SQUARE_ERROR


def _added_up(shards: list[list[int]]) -> Figures:
    parts = [shard for shard in shards if shard and shard[0]]
    if not parts:
        return Figures(0, 0, None, None)
    total = sum((high << 32) + low for _, high, low, _, _ in parts)
    return Figures(
        sum(part[0] for part in parts), total, min(part[3] for part in parts), max(part[4] for part in parts)
    )
