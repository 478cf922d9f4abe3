"""For tests, ours and yours: real servers, and waiting for a condition. Importing it does not need pytest."""

from cqrskit.testing.servers import ElasticsearchServer, PostgresServer
from cqrskit.testing.waiting import eventually

__all__ = ["ElasticsearchServer", "PostgresServer", "eventually"]
