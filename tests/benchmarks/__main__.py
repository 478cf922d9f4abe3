"""``python -m tests.benchmarks [--quick] [--json]``: each figure beside its peers and its limit, from one run."""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop

from cqrskit.telemetry import configure_logging
from cqrskit.testing import ElasticsearchServer, PostgresServer
from tests.benchmarks import imports, projections, writes
from tests.benchmarks.figures import Figure, show

__all__ = ["main"]


def machine() -> str:
    """What the figures were measured on."""
    cores = os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{cores} cores, {memory:.0f} GB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, load {load:.1f} at the start"
    )


@contextmanager
def servers() -> Iterator[tuple[PostgresServer, ElasticsearchServer]]:
    """The servers of the tests, for as long as the benchmark takes."""
    postgres = PostgresServer().start()
    try:
        elasticsearch = ElasticsearchServer().start()
        try:
            yield postgres, elasticsearch
        finally:
            elasticsearch.stop()
    finally:
        postgres.stop()


async def measure(postgres: PostgresServer, elasticsearch: ElasticsearchServer, scale: int) -> list[Figure]:
    """All figures; `scale` divides the amounts of work."""
    figures = await writes.measure(postgres, scale)
    figures += await imports.measure(postgres, scale)
    figures += await projections.measure(postgres, elasticsearch, scale)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--json", action="store_true", help="write JSON")
    options = parser.parse_args()
    configure_logging("error")
    described = machine()
    with servers() as (postgres, elasticsearch), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(measure(postgres, elasticsearch, 10 if options.quick else 1))
    if options.json:
        json.dump({"machine": described, "figures": [figure.plain() for figure in figures]}, sys.stdout, indent=2)
        return
    print(f"{described}\n")
    show(figures)


if __name__ == "__main__":
    main()
