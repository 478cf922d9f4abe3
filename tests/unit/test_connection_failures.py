"""Which failures of a connection to Postgres pass when one waits, and which are wrong settings."""

import psycopg
import pytest

from cqrskit.errors import ServerUnavailable
from cqrskit.postgres.connections import is_lasting

LASTING = [
    'connection failed: connection to server on socket "/a/.s" failed: FATAL:  password authentication failed',
    'connection failed: connection to server at "::1", port 5432 failed: fe_sendauth: no password supplied',
    'FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "ann", database "bank", no encryption',
    'FATAL:  role "ann" does not exist',
    'FATAL:  role "ann" is not permitted to log in',
    'FATAL:  database "bank" does not exist',
    'FATAL:  permission denied for database "bank"',
    "FATAL:  no such user: ann",
    "FATAL:  no such database: bank",
    'invalid integer value "port" for connection option "port"',
    'invalid port number: "70000"',
    "failed to resolve host 'localhost': [Errno -8] Servname not supported for ai_socktype",
    'invalid sslmode value: "full"',
    "server does not support SSL, but SSL was required",
    "SSL error: certificate verify failed",
    'server certificate for "a" does not match host name "b"',
    'root certificate file "/etc/ca.crt" does not exist',
    "connection refused\nMultiple connection attempts failed. All failures were:\n"
    "- host: localhost, hostaddr: 127.0.0.1: FATAL:  password authentication failed\n"
    "- host: localhost, hostaddr: ::1: connection refused",
]
PASSING = [
    'connection to server at "127.0.0.1", port 1 failed: Connection refused\n\tIs the server running on that host?',
    'connection to server on socket "/a/.s.PGSQL.5432" failed: No such file or directory',
    "FATAL:  the database system is starting up",
    "FATAL:  the database system is shutting down",
    "FATAL:  the database system is not yet accepting connections\nDETAIL:  Consistent recovery state has not been yet",
    "FATAL:  sorry, too many clients already",
    "server closed the connection unexpectedly",
    "connection timeout expired",
    "failed to resolve host 'postgres': [Errno -2] Name or service not known",
    "FATAL:  server login has been failed, try again later (server_login_retry)",
]


def failure_of(cause: Exception | None) -> ServerUnavailable:
    error = ServerUnavailable("Postgres", "a:5432/bank", "as told")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("words", LASTING)
def test_wrong_settings_are_not_waited_for(words: str) -> None:
    assert is_lasting(failure_of(psycopg.OperationalError(words)))


@pytest.mark.parametrize("words", PASSING)
def test_a_server_that_is_away_or_busy_is_waited_for(words: str) -> None:
    assert not is_lasting(failure_of(psycopg.OperationalError(words)))


def test_what_a_session_may_not_do_is_known_by_its_number() -> None:
    assert is_lasting(failure_of(psycopg.errors.InsufficientPrivilege("in whatever language")))
    assert not is_lasting(failure_of(psycopg.errors.AdminShutdown("terminating connection")))


def test_failures_of_other_servers_are_waited_for() -> None:
    for cause in (None, ConnectionRefusedError("authentication failed")):
        assert not is_lasting(failure_of(cause))
