"""Figures, and the table that shows each beside its limit and its peers."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

__all__ = ["Figure", "rate", "show"]


class Figure(msgspec.Struct):
    """So many things in each second. `beside` names what it is compared with, by their rates in the same run."""

    name: str
    unit: str
    per_second: float
    beside: dict[str, float] = {}

    def plain(self) -> dict[str, Any]:
        """As JSON, with the ratios."""
        ratios = {name: round(self.per_second / other, 3) for name, other in self.beside.items()}
        return {**msgspec.to_builtins(self), "ratios": ratios}


async def rate(count: int, work: Callable[[], Awaitable[object]]) -> float:
    """How many of `count` things the work does in each second."""
    begun = time.perf_counter()
    await work()
    return count / (time.perf_counter() - begun)


def show(figures: list[Figure]) -> None:
    """A table for people; as Markdown where no terminal is."""
    console = Console()
    if not console.is_terminal:
        print("| figure | per second | beside | ratio |\n| --- | ---: | --- | ---: |")
        for figure in figures:
            rows = list(figure.beside.items()) or [("", 0.0)]
            for number, (name, other) in enumerate(rows):
                what = (figure.name, f"{figure.per_second:,.0f} {figure.unit}") if number == 0 else ("", "")
                ratio = f"{figure.per_second / other:.2f}" if other else ""
                print(f"| {what[0]} | {what[1]} | {name}{f': {other:,.0f}' if other else ''} | {ratio} |")
        return
    table = Table("figure", "per second", "beside", "ratio")
    for figure in figures:
        table.add_row(figure.name, f"{figure.per_second:,.0f} {figure.unit}")
        for name, other in figure.beside.items():
            table.add_row("", "", f"{name}: {other:,.0f}", f"{figure.per_second / other:.2f}")
    console.print(table)
