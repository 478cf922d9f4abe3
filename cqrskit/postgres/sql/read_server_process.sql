-- The server's process behind a connection; a pooler announces another one when it takes the connection.
SELECT pg_backend_pid()
