"""Rows of the table: what was measured, beside what, and whether the ratio reaches its limit."""

import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

__all__ = ["Limit", "Row", "Side", "at_least", "at_most", "interleaved", "mean_seconds", "percentile", "rate", "show"]


class Limit(msgspec.Struct, frozen=True):
    """What a ratio must reach, or must not exceed; of a row without a peer, what its value must."""

    bound: float
    is_minimum: bool

    def holds(self, value: float) -> bool:
        """Whether a ratio keeps it."""
        return value >= self.bound if self.is_minimum else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.is_minimum else '≤'} {self.bound:,g}"


def at_least(bound: float) -> Limit:
    """The limit of what should be large."""
    return Limit(bound, True)


def at_most(bound: float) -> Limit:
    """The limit of what should be small."""
    return Limit(bound, False)


class Row(msgspec.Struct, frozen=True):
    """One row: `value` in `unit`, beside another value in the same unit, measured in the same run."""

    name: str
    unit: str
    value: float
    beside: str = ""
    other: float | None = None
    limit: Limit | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the other value; None without one."""
        return None if not self.other else self.value / self.other

    @property
    def kept(self) -> bool | None:
        """Whether the limit is kept; None where there is no limit."""
        if self.limit is None:
            return None
        return self.limit.holds(self.value if self.ratio is None else self.ratio)

    def plain(self) -> dict[str, Any]:
        """As JSON, with the ratio and the verdict."""
        fields = {name: getattr(self, name) for name in ("name", "unit", "value", "beside", "other", "note")}
        return {
            **fields,
            "ratio": self.ratio,
            "limit": None if self.limit is None else str(self.limit),
            "ok": self.kept,
        }


class Side(msgspec.Struct):
    """One of several things that are measured in turns. Each call of `run` is a round and returns its value."""

    name: str
    run: Callable[[], Awaitable[float]]
    values: list[float] = []

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    @property
    def spread(self) -> str:
        """The smallest and the largest round, for a note."""
        return f"{written(min(self.values))} to {written(max(self.values))}"


async def interleaved(rounds: int, *sides: Side) -> None:
    """Run all sides in turns (A B A B …), since a machine's speed drifts; every other round runs backwards."""
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            side.values.append(await side.run())


async def rate(count: int, work: Callable[[], Awaitable[object]]) -> float:
    """How many of `count` things the work does in each second."""
    begun = time.perf_counter()
    await work()
    return count / (time.perf_counter() - begun)


async def mean_seconds(count: int, work: Callable[[], Awaitable[object]]) -> float:
    """How long one of `count` things takes."""
    return 1 / await rate(count, work)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of `values` does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def written(value: float) -> str:
    """A number with about three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


HEADINGS = ("measured", "value", "beside", "its value", "ratio", "limit", "")


def _cells(row: Row) -> tuple[str, ...]:
    verdict = {None: "", True: "ok", False: "missed"}[row.kept]
    return (
        row.name + (f" ({row.note})" if row.note else ""),
        f"{written(row.value)} {row.unit}",
        row.beside,
        "" if row.other is None else written(row.other),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.limit is None else str(row.limit),
        verdict,
    )


def show(groups: dict[str, list[Row]]) -> None:
    """A table for people; as Markdown where no terminal is."""
    console = Console()
    if not console.is_terminal:
        print(f"| {' | '.join(HEADINGS)} |\n| --- | ---: | --- | ---: | ---: | ---: | --- |")
        for rows in groups.values():
            for row in rows:
                print(f"| {' | '.join(_cells(row))} |")
        return
    table = Table(*HEADINGS)
    for rows in groups.values():
        for row in rows:
            style = {None: None, True: "green", False: "red"}[row.kept]
            *cells, verdict = _cells(row)
            table.add_row(*cells, f"[{style}]{verdict}[/]" if style else verdict)
        table.add_section()
    console.print(table)
