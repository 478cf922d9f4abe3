"""For tests, ours and yours: stories without servers, real servers, and checks. Importing it does not need pytest."""

from cqrskit.testing.scenario import Scenario
from cqrskit.testing.schema import schema_findings
from cqrskit.testing.servers import ElasticsearchServer, PostgresServer
from cqrskit.testing.verification import Difference, differences_from_log
from cqrskit.testing.waiting import eventually

__all__ = [
    "Difference",
    "ElasticsearchServer",
    "PostgresServer",
    "Scenario",
    "differences_from_log",
    "eventually",
    "schema_findings",
]
