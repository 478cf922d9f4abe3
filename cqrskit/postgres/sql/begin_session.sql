-- What a connection begins with, whatever the role or the database says: times are read in the session's time zone, and
-- who holds locks and is gone must not hold them for ever. A pooler between us and the server announces a process of
-- its own making; then the session is shared, and only the time zone is set, which poolers keep for each client.
SELECT pg_backend_pid() = %(announced)s AS is_own,
       current_setting('default_transaction_isolation') AS isolation,
       set_config('timezone', 'UTC', false),
       CASE WHEN pg_backend_pid() = %(announced)s
            THEN set_config('default_transaction_isolation', 'read committed', false) END,
       CASE WHEN pg_backend_pid() = %(announced)s
            THEN set_config('idle_in_transaction_session_timeout', '60s', false) END
