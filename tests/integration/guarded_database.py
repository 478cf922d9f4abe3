"""A Postgres that asks one of its users for a password."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import psycopg
from psycopg import sql

from cqrskit.testing.servers import PostgresServer

__all__ = ["guarded_database", "url_with_password"]

RULES = "local all guarded scram-sha-256|local all all trust"


@contextmanager
def guarded_database() -> Iterator[str]:
    """The URL of a migrated database, for the superuser, whom it trusts; the user `guarded` has to show "right"."""
    server = PostgresServer().start()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
        ((path,),) = connection.execute("SHOW hba_file").fetchall()
        connection.execute(sql.SQL("COPY (SELECT unnest(string_to_array({}, '|'))) TO {}").format(RULES, str(path)))
        connection.execute("SELECT pg_reload_conf()")
    yield server.create_database()
    server.stop()


def url_with_password(url: str, password: str) -> str:
    """The URL of the user `guarded` who shows this password."""
    return url.replace("postgres@", f"guarded:{quote(password, safe='')}@")
