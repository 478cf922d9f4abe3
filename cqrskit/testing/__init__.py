"""For tests, ours and yours: stories without servers, real servers, faults, checks. Importing it needs no pytest."""

from cqrskit.testing.postgres_messages import ClientMessage, commits, every, says
from cqrskit.testing.restartable_postgres import RestartablePostgres
from cqrskit.testing.scenario import Scenario
from cqrskit.testing.schema import schema_findings
from cqrskit.testing.secured_elasticsearch import SecuredElasticsearch
from cqrskit.testing.servers import ElasticsearchServer, PostgresServer
from cqrskit.testing.small_disk import SmallDisk
from cqrskit.testing.verification import assert_projection_exact
from cqrskit.testing.waiting import eventually
from cqrskit.testing.wire import Cut, CuttableWire
from cqrskit.verification import Difference, DifferenceKind, Verifier

__all__ = [
    "ClientMessage",
    "Cut",
    "CuttableWire",
    "Difference",
    "DifferenceKind",
    "ElasticsearchServer",
    "PostgresServer",
    "RestartablePostgres",
    "Scenario",
    "SecuredElasticsearch",
    "SmallDisk",
    "Verifier",
    "assert_projection_exact",
    "commits",
    "eventually",
    "every",
    "says",
    "schema_findings",
]
