"""``python -m tests.benchmarks``: each figure beside its peer and its limit, from one run."""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from cqrskit.telemetry import configure_logging
from tests.benchmarks import (
    failover,
    growth,
    http,
    imports,
    latency,
    ledger_commands,
    machine,
    pages,
    processes,
    projections,
    rebuilds,
    service,
    transfers,
    visibility,
    volume,
    writes,
)
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, show

__all__ = ["GROUPS", "main"]

GROUPS: dict[str, Callable[[Bench], Awaitable[list[Row]]]] = {
    "writes": writes.measure,
    "transfers": transfers.measure,
    "ledger": ledger_commands.measure,
    "http": http.measure,
    "latency": latency.measure,
    "processes": processes.measure,
    "volume": volume.measure,
    "growth": growth.measure,
    "imports": imports.measure,
    "projections": projections.measure,
    "visibility": visibility.measure,
    "rebuilds": rebuilds.measure,
    "failover": failover.measure,
    "pages": pages.measure,
    "service": service.measure,
}
QUICK_SHARE = 0.05


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little work: to see that it runs, not how fast")
    parser.add_argument("--only", action="append", choices=list(GROUPS), metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--share", type=float, help="the share of the full work to do (full: 1, quick: 0.05)")
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a limit is missed")
    return parser.parse_args()


async def _measure(bench: Bench, names: list[str]) -> dict[str, list[Row]]:
    return {name: await GROUPS[name](bench) for name in names}


def main() -> int:
    """Measure and print."""
    options = _options()
    configure_logging("error")
    share = options.share or (QUICK_SHARE if options.quick else 1.0)
    with Bench(share) as bench, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        described = machine.describe(bench.postgres.url)
        groups = runner.run(_measure(bench, options.only or list(GROUPS)))
        bench.say("done")
    _print(described, groups, as_json=options.json)
    missed = [row for rows in groups.values() for row in rows if row.kept is False]
    return 1 if missed and options.strict else 0


def _print(described: dict[str, str], groups: dict[str, list[Row]], *, as_json: bool) -> None:
    if as_json:
        rows: dict[str, Any] = {name: [row.plain() for row in rows] for name, rows in groups.items()}
        json.dump({"machine": described, "groups": rows}, sys.stdout, indent=2)
        print()
        return
    for name, text in described.items():
        print(f"- {name}: {text}")
    print()
    show(groups)


if __name__ == "__main__":
    sys.exit(main())
