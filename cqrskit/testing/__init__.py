"""For tests, ours and yours: stories without servers, real servers, faults, checks. Importing it needs no pytest."""

from cqrskit.testing.fault import Fault, Hold
from cqrskit.testing.http_faults import BulkItem, answering, cutting, every_item, refusing_items, slow
from cqrskit.testing.http_messages import HttpRequest, HttpResponse
from cqrskit.testing.http_wire import HttpWire, asks, bulk_writes
from cqrskit.testing.pgbouncer import PgBouncer
from cqrskit.testing.postgres_messages import ClientMessage, commits, every, says
from cqrskit.testing.read_only_index import read_only_index
from cqrskit.testing.restartable_elasticsearch import RestartableElasticsearch
from cqrskit.testing.restartable_postgres import RestartablePostgres
from cqrskit.testing.scenario import Scenario
from cqrskit.testing.schema import schema_findings
from cqrskit.testing.secured_elasticsearch import SecuredElasticsearch
from cqrskit.testing.servers import ElasticsearchServer, PostgresServer
from cqrskit.testing.small_disk import SmallDisk
from cqrskit.testing.verification import assert_projection_exact
from cqrskit.testing.waiting import eventually
from cqrskit.testing.wire import Cut, CuttableWire
from cqrskit.testing.worker_process import WorkerProcess
from cqrskit.verification import Difference, DifferenceKind, Verifier

__all__ = [
    "BulkItem",
    "ClientMessage",
    "Cut",
    "CuttableWire",
    "Difference",
    "DifferenceKind",
    "ElasticsearchServer",
    "Fault",
    "Hold",
    "HttpRequest",
    "HttpResponse",
    "HttpWire",
    "PgBouncer",
    "PostgresServer",
    "RestartableElasticsearch",
    "RestartablePostgres",
    "Scenario",
    "SecuredElasticsearch",
    "SmallDisk",
    "Verifier",
    "WorkerProcess",
    "answering",
    "asks",
    "assert_projection_exact",
    "bulk_writes",
    "commits",
    "cutting",
    "eventually",
    "every",
    "every_item",
    "read_only_index",
    "refusing_items",
    "says",
    "schema_findings",
    "slow",
]
