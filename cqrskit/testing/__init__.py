"""For tests, ours and yours: stories without servers, real servers, faults, checks. Importing it needs no pytest."""

from cqrskit.testing.pgbouncer import PgBouncer
from cqrskit.testing.postgres_messages import ClientMessage, commits, every, says
from cqrskit.testing.restartable_postgres import RestartablePostgres
from cqrskit.testing.scenario import Scenario
from cqrskit.testing.schema import schema_findings
from cqrskit.testing.servers import ElasticsearchServer, PostgresServer
from cqrskit.testing.small_disk import SmallDisk
from cqrskit.testing.verification import Difference, differences_from_log
from cqrskit.testing.waiting import eventually
from cqrskit.testing.wire import Cut, CuttableWire

__all__ = [
    "ClientMessage",
    "Cut",
    "CuttableWire",
    "Difference",
    "ElasticsearchServer",
    "PgBouncer",
    "PostgresServer",
    "RestartablePostgres",
    "Scenario",
    "SmallDisk",
    "commits",
    "differences_from_log",
    "eventually",
    "every",
    "says",
    "schema_findings",
]
